"""The packages of the wheel: everything below `ove`; `launch` and `configs` are `ove.launch` and `ove.configs` there."""

from setuptools import find_packages, setup

launch = [f"ove.{name}" for name in find_packages(include=["launch", "launch.*"])]
setup(
    packages=[*find_packages(include=["ove", "ove.*"]), *launch, "ove.configs"],
    package_dir={"ove.launch": "launch", "ove.configs": "configs"},
    package_data={"ove": ["py.typed", "*.pyi"], "ove.plan": ["gpus/*.txtpb"]},
)
