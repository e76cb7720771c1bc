# shellcheck shell=bash
# What JAX reads from the environment, for a run that has its devices to itself; the other scripts source it. What is set stays.
# CPUs and TPUs take no notice. docs/launching.md says where the values are from.

# The share of a GPU's memory that JAX takes at its start; by itself three quarters. `ove plan` counts with it.
if [ -z "${XLA_CLIENT_MEM_FRACTION:-}${XLA_PYTHON_CLIENT_MEM_FRACTION:-}" ]; then
  export XLA_CLIENT_MEM_FRACTION=0.9
fi
# Gradients of a layer are summed over the GPUs while those of the next are computed.
case "${XLA_FLAGS:-}" in
  *xla_gpu_enable_latency_hiding_scheduler*) ;;
  *) export XLA_FLAGS="${XLA_FLAGS:+$XLA_FLAGS }--xla_gpu_enable_latency_hiding_scheduler=true" ;;
esac

# For dry runs: what is set.
tell_environment() {
  local name
  for name in XLA_CLIENT_MEM_FRACTION XLA_PYTHON_CLIENT_MEM_FRACTION XLA_FLAGS; do
    if [ -n "${!name:-}" ]; then printf 'export %s=%q\n' "$name" "${!name}"; fi
  done
}
