"""The geometry of a numerical head: signed distances in millimetres, at any point of space."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.functional import grid_sample, pad

from mri_score.numerics.noise import generators, noise_like, uniform

Layer = tuple[str, Tensor]
"""A tissue and its signed distance (mm, negative inside). Each layer covers the layers before it."""

POINTS = 64
"""Points per side of the periodic lattice of a field, ten per wavelength."""


class Field:
    """Smooth random functions of space: periodic 3-D Gaussian noise around one wavelength (mm), unit variance.

    __call__(p): points (3, N) in mm -> (count, N); with `gradient`, one function and its gradient: (4, N).
    """

    def __init__(
        self,
        seed: int,
        name: str,
        wavelength: float,
        width: float = 0.25,
        count: int = 1,
        gradient: bool = False,
    ) -> None:
        self.period, self.wavenumber = POINTS * wavelength / 10, 2 * math.pi / wavelength
        white = noise_like(torch.empty(count, *[POINTS] * 3), generators(seed, name, draws=count))
        line = 2 * math.pi * torch.fft.fftfreq(POINTS, self.period / POINTS)
        kz, ky, kx = torch.meshgrid(line, line, line, indexing="ij")
        k = (kx**2 + ky**2 + kz**2).sqrt() / self.wavenumber
        spectrum = torch.fft.fftn(white, dim=(1, 2, 3)) * torch.exp(-((k - 1) ** 2) / (2 * width**2))
        if gradient:
            spectrum = spectrum * torch.stack([torch.ones_like(k), 1j * kx, 1j * ky, 1j * kz])
        noise = torch.fft.ifftn(spectrum, dim=(1, 2, 3)).real
        self.lattice = pad((noise / noise[0].std())[None], (0, 1) * 3, mode="circular")

    def __call__(self, p: Tensor) -> Tensor:
        place = torch.remainder(p / self.period, 1) * 2 - 1
        return grid_sample(self.lattice, place.T[None, None, None], align_corners=True)[0, :, 0, 0]


@dataclass(frozen=True)
class Head:
    """The random parameters of one head, in head coordinates (mm): x left, y forward, z up, AC-PC plane at 0."""

    folds: Field
    creases: Field
    slow: Field
    fine: Field
    vary: Tensor
    """(24,) uniform in [-1, 1]: sizes, tilt, age."""
    lesions: Tensor
    """(n, 4): centre and radius."""

    @staticmethod
    @lru_cache(maxsize=2)
    def of(seed: int) -> Head:
        """The head for a seed."""
        random = generators(seed, "head")[0]
        vary = 2 * torch.stack([uniform([random])[0] for _ in range(24)]).float() - 1
        spots = noise_like(torch.empty(1, 4 + int(4 * vary[0].abs()), 4), [random])[0]
        side = spots[:, :1].sign()
        where = torch.cat([side * (27 + 2 * spots[:, :1]), 30 * spots[:, 1:2] - 10, 24 + 6 * spots[:, 2:3]], 1)
        return Head(
            folds=Field(seed, "folds", 29.0, gradient=True),
            creases=Field(seed, "creases", 20.0, gradient=True),
            slow=Field(seed, "slow", 60.0, 0.4, count=4),
            fine=Field(seed, "fine", 9.0, 0.5, count=2),
            vary=vary,
            lesions=torch.cat([where, 1.2 + 0.9 * spots[:, 3:].abs()], 1),
        )

    def points(self, scanner: Tensor) -> Tensor:
        """Head coordinates of scanner coordinates (3, N), by the size and orientation of this head."""
        pitch, roll, yaw = (self.vary[1:4] * torch.tensor([0.06, 0.03, 0.06])).tolist()
        scale = (1 + 0.035 * self.vary[4:7]).unsqueeze(1)
        turned = _turn(pitch, 1, 2) @ _turn(roll, 0, 2) @ _turn(yaw, 0, 1) @ scanner
        return turned / scale - torch.tensor([[0.0], [16.0], [0.0]])

    def layers(self, p: Tensor) -> list[Layer]:
        """The tissue layers at points p (3, N), outermost first."""
        bend = self.slow(p)
        vault = _vault(p) + 0.4 * bend[0]
        dura = -_smooth_min([-vault, -_base(p)], 6.0)
        ventricles, plexus = self._ventricles(p, bend)
        return [
            *self._scalp(p, vault, bend),
            *self._face(p),
            *self._skull(p, dura, dura - vault, bend),
            *self._cortex(p, dura, bend),
            *self._nuclei(p, bend),
            *self._lesions(p),
            ("csf", ventricles),
            ("plexus", plexus),
            *self._midline(p, dura),
            *self._hindbrain(p, dura, bend),
        ]

    def _scalp(self, p: Tensor, vault: Tensor, bend: Tensor) -> list[Layer]:
        """Skin, fat, and the temporal muscles."""
        x, y, z = p
        back, front = torch.sigmoid((-y - 60) / 15), torch.sigmoid((y - 45) / 8)
        temporal = 4.5 * torch.exp(-(((y - 16) / 30) ** 2) - ((z + 10) / 28) ** 2) * torch.sigmoid((x.abs() - 40) / 12)
        fat = (4.2 + self.vary[8] + 0.25 * bend[1] + 1.5 * back - 1.2 * front).clamp_min(1.5)
        outer = vault - self._bone(p, bend)
        return [
            ("muscle", outer - temporal - fat - 1.6),
            ("fat", outer - temporal - fat),
            ("muscle", outer - temporal - 0.9),
        ]

    def _bone(self, p: Tensor, bend: Tensor) -> Tensor:
        """Thickness of the skull: larger at the back and in the forehead."""
        y = p[1]
        return 5.6 + self.vary[7] + 0.35 * bend[1] + 1.8 * torch.sigmoid((-y - 60) / 15) + torch.sigmoid((y - 45) / 8)

    def _skull(self, p: Tensor, dura: Tensor, base: Tensor, bend: Tensor) -> list[Layer]:
        """Two dark tables with marrow between them, thin and solid at the base; dura, and the fluid below it."""
        bone, grain = self._bone(p, bend), self.fine(p)[0]
        bone = 2.5 + (bone - 2.5) * torch.sigmoid(5.0 - base)
        marrow = (dura - 0.5 * bone).abs() - (0.5 * bone - 1.5 + 0.15 * grain)
        return [("bone", dura - bone), ("marrow", marrow), ("dura", dura - 0.8), ("csf", dura)]

    def _cortex(self, p: Tensor, dura: Tensor, bend: Tensor) -> list[Layer]:
        """Grey and white matter of the hemispheres: sulci are sheets that reach inward from the surface.

        A sheet is the zero set of a narrow-band field that is constant along rays from the core of a hemisphere;
        atan2(|n|, |grad n| / k) / k is its distance, exact for a plane wave.
        """
        x, arch, age = p[0], _arch(p), 0.5 + 0.5 * self.vary[9]
        wide = 0.35 + 0.35 * age
        hull = -dura - 1.6 - 1.2 * age + 0.5 * bend[2]
        middle, within = x + 0.8 * bend[3], (-arch).clamp_min(0)
        gap = (middle**2 + within**2).sqrt() - wide
        depth = torch.minimum(hull, (middle**2 + (6 * within) ** 2).sqrt())
        flare = wide * (1 + 1.2 * torch.exp(-depth.clamp_min(0) / 3.0))
        folds = self._sheet(self.folds, p + 3.5 * bend[1:], depth, 16.5 + 5.0 * bend[1]) - flare
        creases = self._sheet(self.creases, p + 2.5 * bend[:3], depth, 4.5 + 4.0 * bend[2]) - 0.6 * flare
        sylvian = self._sylvian(p, bend) - 1.5 * wide
        pial = _smooth_min([hull, gap, folds, creases, sylvian], 1.0)
        core = _smooth_min([hull, gap, folds, creases + 0.5, sylvian], 1.4)
        callosum = (_arch(p, 0.012) + 4.0).abs() - 3.4 + 0.016 * x**2
        return [("grey", -pial), ("white", 2.3 + 0.2 * bend[3] - core), ("white", torch.maximum(callosum, -hull))]

    def _sheet(self, field: Field, p: Tensor, depth: Tensor, reach: Tensor) -> Tensor:
        """Distance to the sulci of one field, which end `reach` mm below the surface."""
        core, ray, far = _rays(p)
        stretch = torch.tensor([[1.0], [1.0], [0.6]])  # along z, so that sulci cross axial slices
        n, *gradient = field(stretch * (core + 40.0 * ray) + torch.where(p[0] > 0, 31.0, -17.0))
        slope = stretch * torch.stack(gradient)
        slope = slope - (slope * ray).sum(0) * ray
        k = field.wavenumber
        aside = torch.atan2(n.abs(), slope.square().sum(0).sqrt() / k) / k * (far / 40.0)
        return (aside**2 + (depth - reach.clamp_max(24.0)).clamp_min(0) ** 2).sqrt()

    def _sylvian(self, p: Tensor, bend: Tensor) -> Tensor:
        """Distance to the Sylvian fissure and to the sheet that covers the insula."""
        x, y, z = p
        side = x.abs() + 2.0 * bend[0] + 0.6 * self.fine(p)[0]
        stem = (y - 6 + 1.5 * z + 4 * bend[1]) / 1.8
        stem = (stem**2 + (38 - side).clamp_min(0) ** 2 + ((z - 5).abs() - 24).clamp_min(0) ** 2).sqrt()
        sheet = side - 39 + 0.004 * (y + 2) ** 2
        sheet = (sheet**2 + ((y + 1).abs() - 21).clamp_min(0) ** 2 + ((z - 4).abs() - 13).clamp_min(0) ** 2).sqrt()
        return torch.minimum(stem, sheet)

    def _nuclei(self, p: Tensor, bend: Tensor) -> list[Layer]:
        """Thalamus, putamen, pallidus and caudate; both sides from one description, slightly different."""
        x, y, z = p
        q = torch.stack([x.abs() + 0.8 * bend[0] + 0.04 * self.vary[10] * x, y, z])
        wobble = 0.5 * bend[0]
        caudate = _tube(q, [(12, 21, 0, 5.5), (13, 17, 9, 6), (14, 4, 18, 4), (18, -14, 23, 2.5), (25, -32, 20, 1.2)])
        return [
            ("striatum", caudate + wobble),
            ("striatum", _ellipsoid(q, (25.5, 2, 2), (4.6, 17, 11), -0.28) + wobble),
            ("pallidus", _ellipsoid(q, (19.5, -3, 0), (3.6, 9, 6.5), -0.42) + wobble),
            ("thalamus", _ellipsoid(q, (10.5, -19, 8), (8.5, 14.5, 9.5), -0.38) + wobble),
        ]

    def _ventricles(self, p: Tensor, bend: Tensor) -> tuple[Tensor, Tensor]:
        """Lateral ventricles with their horns, the third ventricle, and the choroid plexus in the atria."""
        x, y, z = p
        wide = 0.9 * self.vary[11] + 0.02 * self.vary[12] * x + 0.4 * bend[0]
        q = torch.stack([x.abs() + 0.5 * bend[0], y, z])
        body = [(15, 33, 4, 2.2), (8.5, 24, 12, 4.3), (6.5, 8, 18, 4.2), (8.5, -12, 22, 4.4)]
        body += [(16, -28, 22, 5.4), (24, -40, 14, 6.2)]
        horns = [(24, -40, 14, 6.2), (30, -36, -2, 3.2), (33, -20, -14, 2.4), (31, -8, -19, 2.6)]
        occipital = [(25, -42, 13, 5.6), (25, -58, 8, 3.2), (22, -70, 6, 1.0)]
        lateral = _smooth_min([_tube(q, body), _tube(q, horns), _tube(q, occipital)], 2.0) - 0.3 - wide
        lateral = torch.maximum(lateral, 0.9 - x.abs())
        third = torch.maximum(_ellipsoid(p, (0, -11, -2), (2.4 + 0.6 * float(self.vary[11]), 17, 13)), z - 9)
        plexus = _tube(q, [(14, -26, 17, 0.9), (23, -38, 12, 3.2), (28, -35, 1, 1.8)]) + 0.8 * self.fine(p)[0]
        return torch.minimum(lateral, third), torch.maximum(plexus, lateral + 0.6)

    def _lesions(self, p: Tensor) -> list[Layer]:
        """Small hyperintensities of the white matter."""
        spots = [(p - one[:3, None]).square().sum(0).sqrt() - one[3] for one in self.lesions]
        return [("lesion", torch.stack(spots).amin(0) + 0.4 * self.fine(p)[1])]

    def _midline(self, p: Tensor, dura: Tensor) -> list[Layer]:
        """Falx, superior sagittal sinus and the large arteries: thin and dark."""
        x, y, z = p
        away = _arch(p)
        falx = torch.maximum(x.abs() - 0.45, torch.maximum(10.0 - away, dura))
        sinus = torch.maximum(((0.9 * x) ** 2 + (dura + 1.2) ** 2).sqrt() - 2.1, 20.0 - away)
        q = torch.stack([x.abs(), y, z])
        middle = _tube(q, [(6, 4, -17, 1.6), (15, 9, -13, 1.5), (26, 6, -9, 1.4), (40, 4, -3, 1.2), (41, -14, 10, 0.9)])
        anterior = _tube(q, [(2.4, 12, -12, 1.1), (2.0, 38, 4, 1.0), (1.8, 26, 32, 0.8)])
        return [("dura", falx), ("blood", sinus), ("blood", torch.minimum(middle, anterior))]

    def _hindbrain(self, p: Tensor, dura: Tensor, bend: Tensor) -> list[Layer]:
        """Cisterns, brain stem, fourth ventricle and the cerebellum with its folia."""
        x, y, z = p
        q = torch.stack([x.abs(), y, z])
        cerebellum = torch.maximum(_ellipsoid(q, (18, -62, -36), (35, 30, 24)), dura + 2.0) + 0.5 * bend[0]
        arc = ((y + 44) ** 2 + (1.3 * z + 30) ** 2 + 0.35 * x**2).sqrt() + 1.2 * bend[1] + 0.5 * self.fine(p)[0]
        folia = 1.3 * torch.cos(2 * math.pi * arc / 5.5)
        tree = _ellipsoid(q, (18, -56, -34), (16, 11, 9)) + 0.8 * folia
        peduncles = _tube(q, [(11, -13, -4, 5), (8, -15, -12, 5.5), (5, -20, -24, 6)])
        pons = _ellipsoid(p, (0, -22, -29), (16, 11, 12))
        oblongata = _tube(p, [(0, -30, -30, 9), (0, -38, -66, 7)])
        tegmentum = _tube(p, [(0, -26, -5, 9), (0, -27, -24, 10)])
        stem = _smooth_min([peduncles, tegmentum, pons, oblongata], 2.0) + 0.4 * bend[2]
        basin = _smooth_min([stem - 2.5, _ellipsoid(q, (4, -3, -15), (9, 9, 7))], 3.0) + 0.5 * self.fine(p)[1]
        return [
            ("csf", torch.maximum(basin, z + 6)),
            ("csf", cerebellum - 1.6),
            ("grey", cerebellum),
            ("csf", torch.maximum(folia + 1.05, (cerebellum + 3.5).abs() - 3.5)),
            ("white", torch.maximum(cerebellum + 2.0, 0.9 - folia)),
            ("white", tree),
            ("white", torch.maximum(stem, z + 4)),
            ("csf", _ellipsoid(p, (0, -42, -32), (6, 4, 9))),
            ("csf", _tube(p, [(0, -33, -6, 1.0), (0, -38, -24, 1.2)])),
        ]

    def _face(self, p: Tensor) -> list[Layer]:
        """Soft tissue below the forehead, the orbits with their globes, the air of the ethmoid and frontal sinus."""
        x, y, z = p
        q = torch.stack([x.abs(), y, z])
        grain = self.fine(p)
        face = _ellipsoid(p, (0, 30, -52), (64, 55, 44))
        orbit = _ellipsoid(q, (30, 52, -36), (16, 25, 15), 0.25)
        globe = _ellipsoid(q, (32, 62, -36), (12, 12, 12))
        cone = _ellipsoid(q, (29, 46, -36), (11, 18, 10), 0.25).abs() - 1.3
        cells = torch.maximum(_ellipsoid(q, (6, 46, -38), (9, 22, 14)), 1.2 - 1.5 * grain[0].abs())
        return [
            ("muscle", face - 1.6),
            ("fat", face),
            ("muscle", face + 5 + 2.0 * grain[1]),
            ("bone", orbit - 2.0),
            ("bone", _ellipsoid(q, (6, 46, -38), (10, 23, 15))),
            ("air", cells),
            ("air", _ellipsoid(p, (4 * float(self.vary[13]), 74, -14), (9, 4, 8))),
            ("fat", orbit),
            ("muscle", torch.maximum(cone, -globe)),
            ("muscle", _tube(q, [(30, 50, -36, 1.8), (14, 22, -32, 1.8)])),
            ("dura", globe - 0.6),
            ("csf", globe),
            ("muscle", _ellipsoid(q, (32, 70.5, -36), (4.5, 2.2, 4.5))),
        ]


def _vault(p: Tensor) -> Tensor:
    """Distance to the inner table: a rounded box, narrower in front."""
    x, y, z = p
    q = torch.stack([x * (1 + 0.16 * torch.sigmoid((y - 18) / 16)), y, z])
    return _ellipsoid(q, (0, -17, 0), (69, 88, 79), power=2.3)


def _base(p: Tensor) -> Tensor:
    """Distance below the base of the skull: three fossae, each a step lower than the one before it."""
    x, y, z = p
    poles = 6 + 14 * torch.exp(-(((x.abs() - 34) / 15) ** 2))
    front, middle = torch.sigmoid((y - poles) / 3.5), torch.sigmoid((y + 34) / 6)
    slope = 20 / 3.5 * front * (1 - front) + 20 / 6 * middle * (1 - middle)
    return (20 * front + 20 * middle - 62 - z) / (1 + slope**2).sqrt()


def _arch(p: Tensor, spread: float = 0.0) -> Tensor:
    """Distance in the sagittal plane to the outside of the corpus callosum, whose ends bend sideways by `spread` (1 /
    mm).
    """
    return _ellipse(((p[1] + 6).abs() - spread * p[0] ** 2).clamp_min(0), p[2] - 6, 39, 22)


def _rays(p: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Nearest point of the hemisphere's core (a segment), unit direction away from it, and distance."""
    side = torch.where(p[0] > 0, 1.0, -1.0)
    core = torch.stack([28 * side, p[1].clamp(-55, 30), 0.5 * p[2].clamp(-30, 60)])
    away = p - core
    far = away.square().sum(0).sqrt().clamp_min(1.0)
    return core, away / far, far


def _ellipse(y: Tensor, z: Tensor, a: float, b: float) -> Tensor:
    """Signed distance to an ellipse (to first order): negative inside."""
    k0 = ((y / a) ** 2 + (z / b) ** 2).sqrt()
    k1 = ((y / a**2) ** 2 + (z / b**2) ** 2).sqrt().clamp_min(1e-6)
    return k0 * (k0 - 1) / k1


def _ellipsoid(
    p: Tensor, centre: Sequence[float], radii: Sequence[float], yaw: float = 0.0, power: float = 2.0
) -> Tensor:
    """Signed distance to an ellipsoid, or superellipsoid, exact to first order at its surface."""
    r = torch.tensor(radii, dtype=p.dtype).unsqueeze(1)
    q = p - torch.tensor(centre, dtype=p.dtype).unsqueeze(1)
    if yaw:
        q = _turn(yaw, 0, 1) @ q
    u = (q / r).abs()
    k0 = (u**power).sum(0).pow(1 / power).clamp_min(1e-3)
    k1 = ((u / k0) ** (power - 1) / r).square().sum(0).sqrt()
    return (k0 - 1) / k1


def _tube(p: Tensor, nodes: Sequence[Sequence[float]]) -> Tensor:
    """Signed distance to a chain of round cones through nodes (x, y, z, radius)."""
    distance = torch.full_like(p[0], math.inf)
    for start, end in pairwise(nodes):
        a, b = torch.tensor(start[:3]).float(), torch.tensor(end[:3]).float()
        along = ((b - a) @ (p - a[:, None]) / (b - a).square().sum()).clamp(0, 1)
        radius = start[3] + along * (end[3] - start[3])
        distance = torch.minimum(distance, (p - a[:, None] - along * (b - a)[:, None]).square().sum(0).sqrt() - radius)
    return distance


def _smooth_min(values: Sequence[Tensor], width: float) -> Tensor:
    """The minimum with its edges rounded over about `width` mm."""
    return -width * 0.5 * torch.logsumexp(-torch.stack(list(values)) / (0.5 * width), 0)


def _turn(angle: float, i: int, j: int) -> Tensor:
    """Rotation by an angle (radians) in the plane of axes i and j."""
    matrix = torch.eye(3)
    matrix[i, i] = matrix[j, j] = math.cos(angle)
    matrix[i, j], matrix[j, i] = -math.sin(angle), math.sin(angle)
    return matrix
