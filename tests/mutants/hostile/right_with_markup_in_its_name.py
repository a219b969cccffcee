from conformance import register

from right import attention


@register("attention", backend="numpy", name="[bold green]CERTIFIED[/] \x1b[2J[/nonsense]", description="[link=x]")
def kernel(q, k, v, *, scale=None):
    return attention(q, k, v, scale)
