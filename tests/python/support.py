"""What the tests of the operators have in common: the library, and tolerances that are derived, not tuned."""

import os

import torch

torch.ops.load_library(os.environ["ATTEND_LIBRARY"])


def leaves(tensors):
    """Copies that gradients are asked of, where they can have them."""
    return [t.detach().clone().requires_grad_() if t is not None and t.is_floating_point() else t for t in tensors]


def gradients(results, inputs):
    """Of a fixed direction of every result, for the inputs that require them."""
    loss = sum((r.to(torch.float64) * torch.linspace(-1, 1, r.numel(), dtype=torch.float64).view(r.shape)).sum()
               for r in results)
    return torch.autograd.grad(loss, [t for t in inputs if t is not None and t.requires_grad], allow_unused=True)


class Accuracy:
    """A mixin of unittest.TestCase."""

    def assert_as_accurate(self, ours, plain, exact, factor, what):
        """The error is at most `factor` times that of plain code of the same dtype, give or take a few roundings."""
        self.assertEqual(ours.shape, exact.shape, what)
        self.assertEqual(ours.dtype, plain.dtype, what)
        seeing = ~exact.isinf()
        self.assertTrue(torch.equal(ours[~seeing].to(torch.float64), exact[~seeing]), what)
        error = lambda values: (values.to(torch.float64) - exact)[seeing].abs().max().item()
        largest = max(1.0, exact[seeing].abs().max().item())
        allowed = factor * error(plain) + 4 * torch.finfo(ours.dtype).eps / 2 * largest
        self.assertLessEqual(error(ours), allowed, what)
