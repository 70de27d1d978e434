"""Training of the expression network: data, augmentation, network, fitting and export.

The only package of the project that imports torch; it needs the extra ``train``.
Start a run with ``python -m models.train fit --data DIRECTORY --config models/train/configs/base.toml --out RUN``.
"""
