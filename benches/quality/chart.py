"""Draws divergence over bits per weight as an SVG."""

import math

WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 760, 460, 70, 20, 20, 50
COLORS = {"vaquita": "#1b6ca8", "llama.cpp": "#c0562f"}


def draw(rows: list[dict]) -> str:
    """One curve for our mixed plans, marks for everything else. The divergence is on a logarithmic scale."""
    rows = [row for row in rows if row["bits"] <= 6]
    low, high = math.floor(min(row["bits"] for row in rows) * 2) / 2, 6.0
    least = math.floor(math.log10(min(row["kld"] for row in rows)))
    most = math.ceil(math.log10(max(row["kld"] for row in rows)))

    def at(bits: float, kld: float) -> tuple[float, float]:
        x = LEFT + (bits - low) / (high - low) * (WIDTH - LEFT - RIGHT)
        y = TOP + (most - math.log10(kld)) / (most - least) * (HEIGHT - TOP - BOTTOM)
        return round(x, 1), round(y, 1)

    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
             f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>']
    for power in range(least, most + 1):
        _, y = at(low, 10.0**power)
        parts.append(f'<path d="M{LEFT} {y}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4}" text-anchor="end">1e{power}</text>')
    for half in range(int(low * 2), int(high * 2) + 1):
        x, _ = at(half / 2, 10.0**least)
        parts.append(f'<path d="M{x} {TOP}V{HEIGHT - BOTTOM}" stroke="#eee"/>')
        parts.append(f'<text x="{x}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{half / 2:g}</text>')
    parts.append(f'<text x="{(LEFT + WIDTH) / 2}" y="{HEIGHT - 10}" text-anchor="middle">bits per weight, whole file</text>')
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(f'<text transform="translate(16 {middle}) rotate(-90)" text-anchor="middle">mean KL divergence, nats</text>')
    curve = [at(row["bits"], row["kld"]) for row in rows if row["name"].startswith("mixed")]
    parts.append(f'<polyline points="{" ".join(f"{x},{y}" for x, y in curve)}" fill="none" stroke="{COLORS["vaquita"]}"/>')
    for row in rows:
        x, y = at(row["bits"], row["kld"])
        color = COLORS[row["side"]]
        parts.append(f'<circle cx="{x}" cy="{y}" r="4" fill="{color}"/>')
        if not row["name"].startswith("mixed"):
            label = row["name"].removeprefix("--type ")
            parts.append(f'<text x="{x + 7}" y="{y - 5}" fill="{color}">{label}</text>')
    for at_row, (side, color) in enumerate(COLORS.items()):
        y = TOP + 20 + 18 * at_row
        parts.append(f'<circle cx="{WIDTH - 130}" cy="{y - 4}" r="4" fill="{color}"/>')
        parts.append(f'<text x="{WIDTH - 120}" y="{y}">{side}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"
