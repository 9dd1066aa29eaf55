# SPDX-License-Identifier: Apache-2.0
"""Backbones: the levels of any image size, and weight files."""

from __future__ import annotations

import re

from mtl_perception.networks import NetworkError
from mtl_perception.networks.backbones import BACKBONES, build_backbone
import pytest
from safetensors.torch import save_file
import timm
import torch

SMALL = 'mobilenetv2_100'


@pytest.mark.parametrize('name', BACKBONES)
@pytest.mark.parametrize('size', [(64, 64), (75, 101)])
def test_levels_cover_the_image(name, size):
    backbone = build_backbone(name).eval()
    with torch.no_grad():
        levels = backbone(torch.randn(1, 3, *size))
    assert backbone.strides == (4, 8, 16, 32)
    for level, width, stride in zip(levels, backbone.channels, backbone.strides):
        assert level.shape == (1, width, -(-size[0] // stride), -(-size[1] // stride))


def test_padding_only_adds_what_is_cut_off_again():
    """On a padded image the wrapped net's own features, cut to the image, come out."""
    backbone = build_backbone('hrnet_w18_small_v2').eval()
    image = torch.randn(1, 3, 70, 100)
    padded = torch.zeros(1, 3, 96, 128)
    padded[..., :70, :100] = image
    with torch.no_grad():
        raw, cut = backbone.net(padded), backbone(image)
    for whole, part in zip(raw, cut):
        assert torch.equal(whole[..., : part.shape[2], : part.shape[3]], part)


@pytest.mark.parametrize(('name', 'expected'), [
    ('hrnet_w18_small_v2', 3.861), ('resnet101', 42.50), ('swin_tiny', 27.52),
    ('mit_b0', 3.32), ('mit_b1', 13.15), ('mit_b2', 24.20),
])
def test_sizes_are_the_published_ones(name, expected):
    """Compare with counts of the released MTI-Net, DenseMTL, DeMT and SegFormer encoders."""
    count = sum(p.numel() for p in build_backbone(name).parameters())
    assert count / 1e6 == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize('output_stride', [8, 16])
def test_dilation_replaces_the_last_strides(output_stride):
    """A dilated ResNet reads the same pixels: its thinned output equals the strided one."""
    strided = build_backbone('resnet18', stem=True).eval()
    dilated = build_backbone('resnet18', stem=True, output_stride=output_stride).eval()
    dilated.load_state_dict(strided.state_dict())
    assert dilated.strides == tuple(min(s, output_stride) for s in strided.strides)
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        for fine, coarse, a, b in zip(dilated(image), strided(image), dilated.strides,
                                      strided.strides):
            assert fine.shape[2:] == (64 // a, 96 // a)
            if a == b:
                torch.testing.assert_close(fine, coarse)
    # torchvision's convention: the first convolution of a dilated stage keeps the old dilation
    last = [m.dilation[0] for n, m in dilated.net.named_modules()
            if n.startswith('layer4') and 'conv' in n]
    assert last == {16: [1, 2, 2, 2], 8: [2, 4, 4, 4]}[output_stride]


def test_the_stem_level_exists_where_the_net_has_one():
    assert build_backbone('resnet18', stem=True).strides == (2, 4, 8, 16, 32)
    assert build_backbone('swin_tiny', stem=True).strides == (4, 8, 16, 32)
    with pytest.raises(NetworkError, match='only ResNets can dilate'):
        build_backbone('pvt_v2_b2', output_stride=16)


def test_swin_levels_are_normalised_per_pixel():
    backbone = build_backbone('swin_tiny').eval()
    with torch.no_grad():
        for level in backbone(torch.randn(1, 3, 64, 64)):
            torch.testing.assert_close(level.mean(1), torch.zeros_like(level[:, 0]),
                                       rtol=0, atol=1e-5)
            torch.testing.assert_close(level.std(1, correction=0), torch.ones_like(level[:, 0]),
                                       rtol=0, atol=1e-2)


@pytest.mark.parametrize('name', ['swin_tiny', 'pvt_v2_b2', 'mit_b0'])
def test_a_file_of_the_library_names_loads_into_every_family(name, tmp_path):
    source = build_backbone(name)
    inner = source.net.encoder if name == 'mit_b0' else source.net
    names = {re.sub(r'^(layers|stages)_', r'\1.', key): value
             for key, value in inner.state_dict().items()}
    save_file(names, tmp_path / 'weights.safetensors')
    loaded = build_backbone(name, tmp_path / 'weights.safetensors')
    for key, value in source.net.state_dict().items():
        assert torch.equal(value, loaded.net.state_dict()[key])


@pytest.fixture
def weights(tmp_path):
    """Return the weights of a whole timm classifier, as its publisher would store them."""
    state = timm.create_model(SMALL).state_dict()
    return {key: torch.rand_like(value) if value.is_floating_point() else value
            for key, value in state.items()}


def test_a_local_file_with_timm_names_loads(tmp_path, weights):
    save_file(weights, tmp_path / 'weights.safetensors')
    backbone = build_backbone(SMALL, tmp_path / 'weights.safetensors')
    loaded = backbone.net.state_dict()
    assert len(loaded) > 200
    for key, value in loaded.items():
        assert torch.equal(value, weights[key])


@pytest.mark.parametrize(('damage', 'message'), [
    (lambda w: w.pop('blocks.3.1.conv_pw.weight'), 'lacks 1 tensors.*blocks.3.1.conv_pw.weight'),
    (lambda w: w.update({'conv_stem.weight': torch.zeros(8, 3, 3, 3)}), 'conv_stem.*shape'),
    (lambda w: w.update({'blocks.9.weight': torch.zeros(1)}), 'does not have.*blocks.9.weight'),
    (lambda w: w['bn1.weight'].fill_(float('nan')), "'bn1.weight' holds NaN"),
])
def test_a_file_that_does_not_fit_is_refused(damage, message, tmp_path, weights):
    damage(weights)
    save_file(weights, tmp_path / 'weights.safetensors')
    with pytest.raises(NetworkError, match=message):
        build_backbone(SMALL, tmp_path / 'weights.safetensors')


def test_a_file_of_another_format_is_refused(tmp_path):
    path = tmp_path / 'weights.safetensors'
    path.write_bytes(b'not tensors')
    with pytest.raises(NetworkError, match='expected a safetensors file'):
        build_backbone(SMALL, path)


def test_an_unreachable_hub_says_what_to_do(monkeypatch):
    def unreachable(name, pretrained, **arguments):
        raise OSError('no route to host')

    monkeypatch.setattr(timm, 'create_model', unreachable)
    with pytest.raises(NetworkError, match=r'no route to host.*local safetensors file'):
        build_backbone(SMALL, pretrained=True)


def test_the_imagenet_weights_recognise_structure(sample_data):
    """The shipped MobileNetV2 weights load: every tensor of the backbone is in the file."""
    path = sample_data / 'weights' / 'mobilenetv2_100_imagenet.safetensors'
    loaded, random = build_backbone(SMALL, path), build_backbone(SMALL)
    differing = [key for key, value in random.net.state_dict().items()
                 if value.dim() == 4 and not torch.equal(value, loaded.net.state_dict()[key])]
    assert len(differing) == sum(value.dim() == 4 for value in random.net.state_dict().values())
    assert SMALL in BACKBONES
