# TensorFlow without types: the type checker's own stubs for it are of another version and refuse
# correct code (`tf.Variable(0.0)`, `np.prod(tensor.shape)`).
from typing import Any

def __getattr__(name: str) -> Any: ...
