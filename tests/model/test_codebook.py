"""Codebooks: nearest code, straight-through, moving averages."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hvq_edge.model.codebook import Codebooks, nearest_code, perplexity


def random(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.integers(2, 40), st.integers(1, 24), st.floats(0, 300))
def test_nearest_code_is_the_nearest(seed, codes, width, common_mean):
    """Also where the codebook has a large common mean, which plain dot products do not survive."""
    tokens = random(seed, 2, 9, width) + common_mean
    codebook = random(seed + 1, 2, codes, width) + common_mean
    found = nearest_code(tokens, codebook)
    distance = torch.cdist(tokens.double(), codebook.double())
    chosen = distance.gather(2, found[..., None])[..., 0]
    # Equal up to rounding: where two codes are as near as float32 can tell, either is right.
    torch.testing.assert_close(chosen, distance.amin(2), rtol=1e-3, atol=1e-3 * (1 + common_mean))


def test_codes_decode_back_to_themselves():
    books = Codebooks(3, 16, 8).eval()
    category = torch.tensor([2, 0])
    found = books(books.codes[category], category)
    assert torch.equal(found.indices, torch.arange(16).expand(2, -1))
    assert torch.equal(found.codes, books.codes[category])
    assert found.commitment == 0


def test_gradients_pass_straight_through():
    books = Codebooks(1, 16, 8).train()
    tokens = random(0, 1, 5, 8).requires_grad_()
    found = books(tokens, torch.tensor([0]))
    weights = random(1, 1, 5, 8)
    (found.codes * weights).sum().backward()
    torch.testing.assert_close(tokens.grad, weights)


def test_moving_averages_by_hand():
    """Two images of category 1, none of category 0."""
    books = Codebooks(2, 4, 3, decay=0.9, epsilon=1e-5).train()
    books.usage.fill_(2.0)
    books.sums.copy_(books.codes * 2)
    before = {name: buffer.clone() for name, buffer in books.named_buffers()}
    tokens = random(3, 2, 6, 3)
    index = books(tokens, torch.tensor([1, 1])).indices

    for name, buffer in books.named_buffers():
        assert torch.equal(buffer[0], before[name][0]), f"{name} of the absent category moved"
    decay = 0.9**2
    usage, sums = torch.zeros(4), torch.zeros(4, 3)
    for image in range(2):
        for token in range(6):
            usage[index[image, token]] += 1 / 2
            sums[index[image, token]] += tokens[image, token] / 2
    usage = decay * before["usage"][1] + (1 - decay) * usage
    sums = decay * before["sums"][1] + (1 - decay) * sums
    smoothed = (usage + 1e-5) / (usage.sum() + 4e-5) * usage.sum()
    torch.testing.assert_close(books.usage[1], usage)
    torch.testing.assert_close(books.sums[1], sums)
    torch.testing.assert_close(books.codes[1], sums / smoothed[:, None])


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.lists(st.integers(0, 3), min_size=1, max_size=9))
def test_moving_averages_are_those_of_a_loop_over_images(seed, category):
    """Images of any categories in any order; each category moves by the mean of its own."""
    books = Codebooks(4, 5, 3, decay=0.9).train()
    for i, buffer in enumerate((books.codes, books.usage, books.sums)):
        buffer.copy_(random(seed + i, *buffer.shape).abs() + 0.1)
    before = {name: buffer.clone().double() for name, buffer in books.named_buffers()}
    tokens = random(seed + 3, len(category), 7, 3)
    index = books(tokens, torch.tensor(category)).indices

    for k in range(4):
        own = [i for i, other in enumerate(category) if other == k]
        if not own:
            for name, buffer in books.named_buffers():
                assert torch.equal(buffer[k].double(), before[name][k])
            continue
        decay = 0.9 ** len(own)
        usage, sums = decay * before["usage"][k], decay * before["sums"][k]
        for i in own:
            one_hot = torch.eye(5, dtype=torch.float64)[index[i]]
            usage = usage + (1 - decay) / len(own) * one_hot.sum(0)
            sums = sums + (1 - decay) / len(own) * one_hot.T @ tokens[i].double()
        smoothed = (usage + 1e-5) / (usage.sum() + 5e-5) * usage.sum()
        for name, value in (
            ("usage", usage),
            ("sums", sums),
            ("codes", sums / smoothed[:, None]),
        ):
            torch.testing.assert_close(
                getattr(books, name)[k].double(), value, rtol=1e-4, atol=1e-5
            )


def test_averages_of_bfloat16_tokens_are_kept_in_float32():
    """Autocast gives such tokens; bfloat16 itself would decay by 0.9883 instead of 0.99."""
    tokens, category = random(0, 3, 40, 8).to(torch.bfloat16), torch.tensor([0, 0, 0])
    moved = []
    for dtype in (torch.bfloat16, torch.float32):
        books = Codebooks(1, 1, 8).train()  # one code: the lookup's own precision decides nothing
        books.codes.copy_(torch.ones(1, 1, 8))
        books.sums.copy_(books.codes)
        books.usage.fill_(30.0)
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            books(tokens.to(dtype), category)
        moved.append(dict(books.named_buffers()))
    for name, buffer in moved[0].items():
        assert buffer.dtype == torch.float32
        torch.testing.assert_close(buffer, moved[1][name], rtol=1e-6, atol=1e-6)


def test_eval_mode_moves_nothing():
    books = Codebooks(2, 4, 3).eval()
    before = books.codes.clone()
    books(random(0, 2, 6, 3), torch.tensor([0, 1]))
    assert torch.equal(books.codes, before)


def test_placed_codes_are_found_and_stay_when_averages_move():
    books = Codebooks(1, 8, 4).train()
    target = random(5, 2, 4) + 20
    books.place(0, torch.tensor([3, 6]), target, torch.tensor(12.0))
    found = books(target[None].repeat(1, 6, 1), torch.tensor([0]))
    assert found.indices.unique().tolist() == [3, 6]
    torch.testing.assert_close(books.codes[0, [3, 6]], target, rtol=1e-3, atol=1e-3)


# What moves codes.


@pytest.mark.parametrize("learning", ["averages", "gradient", "both"])
def test_every_way_to_learn_starts_alike_and_has_one_checkpoint(learning):
    torch.manual_seed(0)
    books = Codebooks(2, 5, 3, learning=learning)
    torch.manual_seed(0)
    published = Codebooks(2, 5, 3)
    assert books.state_dict().keys() == published.state_dict().keys()
    published.load_state_dict(books.state_dict())
    assert torch.equal(books.codes, published.codes)
    assert isinstance(books.codes, torch.nn.Parameter) == (learning != "averages")


def test_codes_that_learn_by_gradient_move_by_the_codebook_loss_alone():
    books = Codebooks(1, 4, 3, learning="gradient").train()
    before = books.codes.detach().clone()
    tokens = random(0, 2, 6, 3).requires_grad_()
    found = books(tokens, torch.tensor([0, 0]))
    assert torch.equal(books.codes, before)  # no averages
    assert books.usage.sum() > 0
    found.codebook_loss.backward()
    assert tokens.grad is None  # the commitment is for these
    expected = torch.zeros(4, 3)
    for image in range(2):
        for token in range(6):
            k = found.indices[image, token]
            expected[k] += 2 * (before[0, k] - tokens[image, token].detach()) / (2 * 6 * 3)
    torch.testing.assert_close(books.codes.grad[0], expected)


def test_the_published_averages_have_no_codebook_loss():
    found = Codebooks(1, 4, 3).train()(random(0, 2, 6, 3), torch.tensor([0, 0]))
    assert found.codebook_loss == 0
    assert not found.codebook_loss.requires_grad


def test_averages_go_on_from_where_a_gradient_has_put_the_codes():
    """And what no token chooses stays there, where the published averages let it shrink."""
    moved = {}
    for learning in ("averages", "both"):
        torch.manual_seed(0)
        books = Codebooks(1, 3, 2, decay=0.9, learning=learning).train()
        start = torch.tensor([[5.0, 0.0], [0.0, 5.0], [-50.0, -50.0]])
        books.place(0, torch.arange(3), start, torch.tensor([3.0, 3.0, 0.0]))
        with torch.no_grad():
            books.codes[0, 0] += 1  # a step of the optimiser
            books.codes[0, 2] += 1
        tokens = torch.tensor([[[6.5, 1.0], [0.0, 5.0], [0.0, 5.0]]])
        assert books(tokens, torch.tensor([0])).indices.tolist() == [[0, 1, 1]]
        moved[learning] = books.codes[0].detach()
    used = moved["both"][0]
    # 2.7 of 2.8 tokens were at (6, 1), 0.1 are at (6.5, 1).
    torch.testing.assert_close(used, torch.tensor([6 + 0.5 / 28, 1.0]), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(moved["both"][2], torch.tensor([-49.0, -49.0]), rtol=1e-3, atol=0)
    assert moved["averages"][0][0] < 5.2  # the step is lost
    assert moved["averages"][2].norm() < 1


def test_perplexity_counts_codes_that_are_used_alike():
    assert perplexity(torch.tensor([3.0, 3.0, 3.0, 0.0])).item() == pytest.approx(3)
    assert perplexity(torch.tensor([[7.0, 0.0], [1.0, 1.0]])).tolist() == pytest.approx([1, 2])
