"""The target M: loading it, its residual stream h(l, t), and patching (eq. 4)."""
