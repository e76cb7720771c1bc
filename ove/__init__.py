"""Vision encoders trained on what is surprising in video.

video/    a file → 64 sampled frames, motion vectors, residual → saliency → selected patches
labels/   clips → teacher embeddings → k-means → the nearest centers of each sample
shards/   clips, saliency and labels on disk
batches/  shards → a resumable stream of (patches, positions, labels), all of one shape
encoder/  patches + (t, y, x) → tokens and one embedding, a ViT with 3D RoPE
centers/  banks of class centers, sampled losses, row-sparse updates
train/    the step, the mesh, the checkpoints, the loop
probe/    a frozen encoder, an attentive probe, a table
view/     what people look at
"""
