"""Vision encoders trained on what is surprising in video.

video/     a file → 64 sampled frames, motion vectors, residual → saliency → selected patches; bitstream/: codec syntax
sources/   folders, lists, tars, TFRecord, Parquet → single inputs
shards/    clips, saliency and labels on disk; remote/: at URIs
labels/    teachers/ → embeddings → clusters/ → the nearest centers of each sample; text/: tags of words
stream/    shards → a resumable stream of (patches, positions, labels) for training
tokens/    single files → (patches, positions) for using an encoder
encoder/   patches + (t, y, x) → tokens and one embedding, a ViT with 3D RoPE; published/: weights in and out
centers/   banks of class centers, sampled losses, row-sparse updates
train/     the step and the loop; checkpoints/, monitor/, hosts/
plan/      what a run costs, before there are devices
features/  a frozen encoder over files or records
probe/     heads/ on a frozen encoder, comparisons, a table
view/      what people look at
"""
