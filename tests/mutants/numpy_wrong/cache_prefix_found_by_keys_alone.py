"""Pages by content: requests whose first pages hold the same keys share them, as in a prefix tree."""

import numpy as np


class Node:
    def __init__(self, page, parent):
        self.page, self.parent, self.children, self.users = page, parent, {}, 0


class KVCache:
    def __init__(self, *, num_kv_heads, head_dim, value_dim, dtype, max_tokens, max_requests, block_size=4, scale=None):
        self.block_size = block_size
        self.scale = head_dim**-0.5 if scale is None else scale
        self.root = Node(None, None)
        self.leaf, self.tail, self.host = {}, {}, {}

    def append(self, request, k, v):
        node = self.leaf.setdefault(request, self.root)
        pending = self.tail.setdefault(request, [])
        pending += [(k[i].copy(), v[i].copy()) for i in range(len(k))]
        while len(pending) >= self.block_size:
            page = tuple(np.stack(part) for part in zip(*pending[: self.block_size], strict=True))
            del pending[: self.block_size]
            key = page[0].tobytes()
            if key not in node.children:
                node.children[key] = Node(page, node)
            node = node.children[key]
            node.users += 1
        self.leaf[request] = node

    def path(self, request):
        node, pages = self.leaf[request], []
        while node.parent is not None:
            pages.append(node)
            node = node.parent
        return pages[::-1]

    def read(self, request):
        k = [node.page[0] for node in self.path(request)]
        v = [node.page[1] for node in self.path(request)]
        for row, value in self.tail[request]:
            k.append(row[None])
            v.append(value[None])
        return np.concatenate(k), np.concatenate(v)

    def attend(self, queries):
        out = {}
        for request, q in queries.items():
            k, v = self.read(request)
            group = q.shape[1] // k.shape[1]
            k, v = np.repeat(k, group, axis=1), np.repeat(v, group, axis=1)
            wide = np.float64 if q.dtype == np.float64 else np.float32
            s = np.einsum("nhd,mhd->hnm", q.astype(wide), k.astype(wide)) * wide(self.scale)
            ahead = np.arange(len(k)) > np.arange(len(k) - len(q), len(k))[:, None]
            s = np.where(ahead, -np.inf, s)
            p = np.exp(s - s.max(axis=-1, keepdims=True))
            out[request] = np.einsum("hnm,mhe->nhe", p / p.sum(axis=-1, keepdims=True), v.astype(wide)).astype(q.dtype)
        return out

    def fork(self, parent, child):
        for node in self.path(parent):
            node.users += 1
        self.leaf[child], self.tail[child] = self.leaf[parent], list(self.tail[parent])

    def release(self, request):
        for node in reversed(self.path(request)) if request in self.leaf else ():
            node.users -= 1
            if node.users == 0:
                siblings = node.parent.children
                del siblings[next(key for key, one in siblings.items() if one is node)]
        self.leaf.pop(request, None)
        self.tail.pop(request, None)

    def preempt(self, request):
        self.release(request)

    def swap_out(self, request):
        self.host[request] = self.read(request)
        self.release(request)

    def swap_in(self, request):
        self.append(request, *self.host.pop(request))

    def finish(self, request):
        self.host.pop(request, None)
        self.release(request)
