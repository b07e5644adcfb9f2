"""Which module a thread is in: a stack kept by forward hooks on eager modules."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle


class ModuleStack:
    """Paths of the modules whose forward is running, one stack per thread.

    Scripted modules take no hooks; inside them the stack simply does not grow.
    """

    def __init__(self, model: nn.Module) -> None:
        self._local = threading.local()
        self._handles: list[RemovableHandle] = []
        self._modules = {
            path: module
            for path, module in model.named_modules()
            if not isinstance(module, torch.jit.ScriptModule)
        }

    def install(self) -> None:
        """Hook every eager module."""
        for path, module in self._modules.items():
            self._handles.append(module.register_forward_pre_hook(self._enter(path)))
            self._handles.append(module.register_forward_hook(self._leave, always_call=True))

    def remove(self) -> None:
        """Take every hook off again."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def reset(self) -> list[str]:
        """Start a forward in this thread with an empty stack, and return that stack."""
        self._local.paths = []
        stack: list[str] = self._local.paths
        return stack

    def is_dropout(self, path: str) -> bool:
        """Whether the module at a path is a dropout module rather than one that calls dropout."""
        module = self._modules.get(path)
        return isinstance(module, nn.modules.dropout._DropoutNd)

    def _enter(self, path: str) -> Callable[[nn.Module, Any], None]:
        def enter(_module: nn.Module, _args: Any) -> None:
            self._paths().append(path)

        return enter

    def _leave(self, _module: nn.Module, _args: Any, _output: Any) -> None:
        paths = self._paths()
        if paths:
            paths.pop()

    def _paths(self) -> list[str]:
        if not hasattr(self._local, "paths"):
            self._local.paths = []
        paths: list[str] = self._local.paths
        return paths
