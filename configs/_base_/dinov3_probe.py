"""Changes that give a linear probe the form of DINOv3's: final norm, dropout, cosine, weight decay 1e-3, float32."""

dinov3_model = dict(backbone=dict(norm=True, dtype="float32"), decode_head=dict(dropout_ratio=0.1))
dinov3_optim_wrapper = dict(optimizer=dict(weight_decay=1e-3))
dinov3_scheduler = dict(type="pe_dense.DINOv3ProbeLR", warmup=1500)
dinov3_train_cfg = dict(val_interval=5000)
