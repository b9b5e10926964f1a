"""Batch normalization of a batch of images: forward, backward, and running statistics for inference."""

import numpy as np

import fastbn

rng = np.random.default_rng(0)
images = rng.normal(loc=[10, 100, 1000], scale=[1, 2, 3], size=(32, 28, 28, 3)).astype(np.float32)
x = images.transpose(0, 3, 1, 2)  # (N, C, H, W) in any memory order, here channels last

bn = fastbn.BatchNorm(3)
y = bn(x)
print("y: ", y.shape, y.dtype, "mean", y.mean((0, 2, 3)).round(4) + 0, "std", y.std((0, 2, 3)).round(4))

dx = bn.backward(np.sin(y))
print("dx:", dx.shape, dx.dtype, "dgamma", bn.dgamma.round(), "dbeta", bn.dbeta.round())

bn.eval()  # from here on, the running statistics normalize
print("running mean", bn.running.mean.round(2), "var", bn.running.var.round(2))
same = fastbn.batch_norm_inference(x, bn.running.mean, bn.running.var, bn.gamma, bn.beta)
print("inference equals the layer in eval mode:", np.array_equal(bn(x), same))
