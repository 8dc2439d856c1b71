"""Helpers of the tests of the operators: the loaded library, gradients, and tolerances derived from float64 results."""

import os

import torch

torch.ops.load_library(os.environ["ATTEND_LIBRARY"])


def leaves(tensors):
    """Returns copies; copies of floating dtypes require gradients."""
    return [t.detach().clone().requires_grad_() if t is not None and t.is_floating_point() else t for t in tensors]


def gradients(results, inputs):
    """Returns the gradients of the inputs that require one, for a fixed gradient of every result."""
    loss = sum((r.to(torch.float64) * torch.linspace(-1, 1, r.numel(), dtype=torch.float64).view(r.shape)).sum()
               for r in results)
    return torch.autograd.grad(loss, [t for t in inputs if t is not None and t.requires_grad], allow_unused=True)


class Accuracy:
    """A mixin for subclasses of unittest.TestCase."""

    def assert_as_accurate(self, ours, plain, exact, factor, what):
        """Asserts that the error against `exact` is at most `factor` times that of `plain`, plain ATen code of the same
        dtype, plus four roundings of the largest element."""
        self.assertEqual(ours.shape, exact.shape, what)
        self.assertEqual(ours.dtype, plain.dtype, what)
        finite = ~exact.isinf()
        self.assertTrue(torch.equal(ours[~finite].to(torch.float64), exact[~finite]), what)
        error = lambda values: (values.to(torch.float64) - exact)[finite].abs().max().item()
        largest = max(1.0, exact[finite].abs().max().item())
        allowed = factor * error(plain) + 4 * torch.finfo(ours.dtype).eps / 2 * largest
        self.assertLessEqual(error(ours), allowed, what)
