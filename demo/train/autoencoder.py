"""Trains the demo world's autoencoder: the host's TAESD classes, on 64-pixel crops.

    COMFYUI_PATH=... python demo/run.py train.autoencoder [steps] [decoder steps]

Stage 1 trains encoder and decoder together. Then the encoder is frozen with an affine map folded into its last
convolution that gives the latents zero mean and unit covariance, and stage 2 lets the decoder follow.
"""
import random

import torch
import torch.nn.functional as F

from ..in_process import VAE, use_host
from ..world import scene
from .files import save_half
from .fit import fit
from .stage import Stage

CROP, IMAGES, CROPS = 64, 8, 2


def crops(rng: random.Random) -> torch.Tensor:
    """A batch [IMAGES*CROPS,3,CROP,CROP] of random crops of drawn frames."""
    out = []
    for _ in range(IMAGES):
        image = scene.random_scene(rng, two=0.3).draw([rng.random()])[0].permute(2, 0, 1)
        for _ in range(CROPS):
            y, x = rng.randrange(0, scene.SIZE - CROP + 1), rng.randrange(0, scene.SIZE - CROP + 1)
            out.append(image[:, y:y + CROP, x:x + CROP])
    return torch.stack(out)


def loss_of(vae, images, encoder_trains: bool):
    """Squared and absolute error of the pictures; small moments penalty and noise on the latents."""
    with torch.autocast("cpu", torch.bfloat16):
        with torch.set_grad_enabled(encoder_trains):
            z = vae.taesd_encoder(images.contiguous(memory_format=torch.channels_last)).float()
        y = vae.taesd_decoder(z + 0.03 * torch.randn_like(z)).float()
    mse = F.mse_loss(y, images)
    loss = mse + 0.1 * F.l1_loss(y, images)
    if encoder_trains:
        loss = loss + 1e-3 * (z.mean((0, 2, 3)).square().mean() + (z.std((0, 2, 3)) - 1).square().mean())
    return loss, mse


def train(vae, steps: int, lr: float, encoder_trains: bool, name: str) -> None:
    def loss(step, rng, rate):
        value, mse = loss_of(vae, crops(rng), encoder_trains)
        return value, {"loss": value, "psnr": -10 * mse.log10()}

    parameters = vae.parameters() if encoder_trains else vae.taesd_decoder.parameters()
    fit(name, parameters, loss, steps, lr=lr, weight_decay=1e-4, betas=(0.9, 0.98), save_every=200)


@torch.no_grad()
def whiten(vae) -> None:
    """Folds z -> C^(-1/2) (z - mean) into the encoder's last convolution (symmetric root: the nearest such map to none).

    Its inverse goes into the decoder's first one, exact but for the soft clamp and the padding before it; stage 2 mends that.
    """
    rng = random.Random(7)
    z = torch.cat([vae.taesd_encoder(scene.random_scene(rng).draw([rng.random()]).permute(0, 3, 1, 2)) for _ in range(256)])
    z = z.permute(1, 0, 2, 3).flatten(1)
    mean, (values, vectors) = z.mean(1), torch.linalg.eigh(torch.cov(z))
    W, back = (vectors @ torch.diag(values**e) @ vectors.T for e in (-0.5, 0.5))
    last, first = vae.taesd_encoder[-1], vae.taesd_decoder[1]
    last.weight.copy_(torch.einsum("oc,cihw->oihw", W, last.weight))
    last.bias.copy_(W @ (last.bias - mean))
    first.bias.add_(torch.einsum("oihw,i->o", first.weight, mean))
    first.weight.copy_(torch.einsum("oihw,ij->ojhw", first.weight, back))


def initialise(vae) -> None:
    """He's initialisation (with torch's default the signal dies in these ReLU networks); each residual branch starts at a fifth of it."""
    for m in vae.modules():
        if isinstance(m, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(m.weight)
            if m.bias is not None:
                torch.nn.init.zeros_(m.bias)
    with torch.no_grad():
        for m in vae.modules():
            if hasattr(m, "fuse"):
                m.conv[-1].weight.mul_(0.2)
        vae.taesd_decoder[-1].weight.mul_(0.2)
        vae.taesd_decoder[-1].bias.fill_(0.5)


def build():
    use_host()
    from comfy.taesd.taesd import TAESD
    vae = TAESD(latent_channels=4).float()
    torch.manual_seed(0)
    initialise(vae)
    return vae.to(memory_format=torch.channels_last)


def save(vae) -> None:
    vae.vae_scale.data.fill_(0.18215)  # SD1.5's latent scale: model-space latents are then the encoder's own output
    vae.vae_shift.data.fill_(0.0)
    save_half(vae.state_dict(), VAE)


def main(argv: list[str]):
    steps = int(argv[0]) if argv else 1800
    decoder_steps = int(argv[1]) if len(argv) > 1 else 2500
    vae = build()
    train(vae, steps, 1.5e-3, True, "autoencoder")
    whiten(vae)
    if not Stage("decoder").file.exists():
        save(vae)  # the image model can already train on these latents
    train(vae, decoder_steps, 7e-4, False, "decoder")
    save(vae)
