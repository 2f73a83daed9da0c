"""The oracle of injection: dense arithmetic in float64."""

import torch


def dense(sae, h_full, h_mid, mask, alpha, undo, bias=False):
    """Eq. 7 from the full matrix of pre-activations, one feature after another: float64 [B, T, d].

    h_full, h_mid: [B, T, d]; mask: bool [F]; undo: see Injecting.undo_l2.
    """
    x = h_full.double()
    if sae.norm.kind == "l2":
        x = x / x.norm(dim=-1, keepdim=True)
    elif sae.norm.kind == "standard":
        x = (x - sae.norm.mean.double()) / sae.norm.scale
    pre = (x - sae.b_dec.double()) @ sae.W_enc.double().T
    kept = torch.zeros_like(pre).scatter(-1, pre.topk(sae.k).indices, 1.0) * pre.clamp_min(0)
    out = torch.zeros_like(x)
    for feature in mask.nonzero()[:, 0].tolist():
        out += kept[..., feature, None] * sae.W_dec[feature].double()
    if bias:
        out += sae.b_dec.double()
    if sae.norm.kind == "standard":
        out = out * sae.norm.scale + (sae.norm.mean.double() if bias else 0)
    if sae.norm.kind == "l2" and undo != "none":
        out = out * (h_full if undo == "full norm" else h_mid).double().norm(dim=-1, keepdim=True)
    return h_mid.double() + alpha * out
