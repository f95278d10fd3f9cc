"""From a score of each module to whole ranks that cost no more than a uniform rank does."""

from collections.abc import Mapping

from library.errors import UsageError
from library.layout import Layout


def allocated(layout: Layout, scores: Mapping[str, float]) -> Layout:
    """The layout whose ranks stand to each other as the scores do, as far as whole numbers allow.

    What a uniform layout spends is the budget: Σ rank·(in + out) of the result is at most that of
    `layout`, and no site's next rank would still fit. A site that gets rank 0 is left out; none
    gets more than its matrix has.

    Args:
        layout: the modules that may be adapted, at the ranks whose cost is the budget.
        scores: of every module, at least 0.
    Raises UsageError: no module has a score above 0, or the budget does not pay for one rank.
    """
    budget = sum(site.numbers for site in layout.sites)
    shares = _ideal(layout, scores, float(budget))
    ranks = {name: int(share) for name, share in shares.items()}
    left = budget - sum(ranks[site.name] * site.numbers_per_rank for site in layout.sites)
    # What rounding down left over goes to the largest remainders, and on while one more fits.
    while True:
        open_sites = [
            site
            for site in layout.sites
            if scores[site.name] > 0
            and ranks[site.name] < site.full_rank
            and site.numbers_per_rank <= left
        ]
        if not open_sites:
            break
        site = max(open_sites, key=lambda s: shares[s.name] - ranks[s.name])
        ranks[site.name] += 1
        left -= site.numbers_per_rank
    kept = {name: rank for name, rank in ranks.items() if rank}
    if not kept:
        raise UsageError("the budget of the placement does not pay for rank 1 of any module")
    return layout.with_ranks(kept)


def _ideal(layout: Layout, scores: Mapping[str, float], budget: float) -> dict[str, float]:
    """Ranks as fractions: score·t for one t that spends the budget, cut at the largest rank."""
    shares = dict.fromkeys(layout.ranks, 0.0)
    rising = [site for site in layout.sites if scores[site.name] > 0]
    if not rising:
        raise UsageError("the placement leaves no module to adapt")
    while rising:
        t = budget / sum(scores[site.name] * site.numbers_per_rank for site in rising)
        full = [site for site in rising if scores[site.name] * t >= site.full_rank]
        for site in full or rising:
            shares[site.name] = float(site.full_rank) if full else scores[site.name] * t
        budget -= sum(site.full_rank * site.numbers_per_rank for site in full)
        rising = [site for site in rising if site not in full] if full else []
    return shares
