//! Multiple-choice knapsack: selects one option per item, with the least total cost within a budget
//! of bytes.
//!
//! ```text
//! take every item's smallest option
//! for each step along the items' lower convex hulls, the greatest gain per byte first:
//!     take it if it fits and the item stands at the step's beginning
//! while any option of any item gains and fits: take the one that gains most
//! ```
//!
//! The hulls make the first loop optimal for the size that it reaches; the last loop uses the rest.

/// One option of an item.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice {
    /// Bytes.
    pub bytes: u64,
    /// Cost.
    pub cost: f64,
}

/// Selects one option for each item; `None` if even the smallest ones exceed the budget.
pub fn solve(items: &[Vec<Choice>], budget: u64) -> Option<Vec<usize>> {
    let hulls: Vec<Vec<usize>> = items.iter().map(|options| hull(options)).collect();
    let mut chosen: Vec<usize> =
        hulls.iter().map(|hull| hull.first().copied()).collect::<Option<_>>()?;
    let used: u64 = items.iter().zip(&chosen).map(|(options, at)| options[*at].bytes).sum();
    let mut left = budget.checked_sub(used)?;

    let mut steps = Vec::new();
    for (item, hull) in hulls.iter().enumerate() {
        for pair in hull.windows(2) {
            let (from, to) = (items[item][pair[0]], items[item][pair[1]]);
            let gain = (from.cost - to.cost) / (to.bytes - from.bytes) as f64;
            steps.push((gain, item, pair[0], pair[1]));
        }
    }
    // A stable sort: steps of equal gain stay in order, so the result is the same everywhere.
    steps.sort_by(|a, b| b.0.total_cmp(&a.0));
    for (_, item, from, to) in steps {
        let bytes = items[item][to].bytes - items[item][from].bytes;
        if chosen[item] == from && bytes <= left {
            chosen[item] = to;
            left -= bytes;
        }
    }
    while let Some((item, option)) = best_that_fits(items, &chosen, left) {
        left = left + items[item][chosen[item]].bytes - items[item][option].bytes;
        chosen[item] = option;
    }
    Some(chosen)
}

fn best_that_fits(items: &[Vec<Choice>], chosen: &[usize], left: u64) -> Option<(usize, usize)> {
    let mut best = (0.0, None);
    for (item, options) in items.iter().enumerate() {
        let now = options[chosen[item]];
        for (at, option) in options.iter().enumerate() {
            let gain = now.cost - option.cost;
            if gain > best.0 && option.bytes <= now.bytes + left {
                best = (gain, Some((item, at)));
            }
        }
    }
    best.1
}

/// Options on the lower convex hull of cost over bytes, from the smallest one to the least cost.
fn hull(options: &[Choice]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..options.len()).collect();
    order.sort_by(|a, b| {
        let (a, b) = (options[*a], options[*b]);
        a.bytes.cmp(&b.bytes).then(a.cost.total_cmp(&b.cost))
    });
    let mut hull: Vec<usize> = Vec::new();
    for at in order {
        let point = options[at];
        if hull.last().is_some_and(|last| options[*last].cost <= point.cost) {
            continue; // larger and no better
        }
        while let [.., a, b] = hull[..] {
            let (a, b) = (options[a], options[b]);
            let slope = |p: Choice, q: Choice| (q.cost - p.cost) / (q.bytes - p.bytes) as f64;
            if slope(a, point) > slope(a, b) {
                break;
            }
            hull.pop();
        }
        hull.push(at);
    }
    hull
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn totals(items: &[Vec<Choice>], chosen: &[usize]) -> (u64, f64) {
        let chosen = items.iter().zip(chosen).map(|(options, at)| options[*at]);
        chosen.fold((0, 0.0), |sum, one| (sum.0 + one.bytes, sum.1 + one.cost))
    }

    fn exhaustive(items: &[Vec<Choice>], budget: u64) -> Option<f64> {
        let mut best: Option<f64> = None;
        let count = items.iter().map(Vec::len).product();
        for mut number in 0..count {
            let chosen: Vec<usize> = items
                .iter()
                .map(|options| {
                    let at = number % options.len();
                    number /= options.len();
                    at
                })
                .collect();
            let (bytes, cost) = totals(items, &chosen);
            if bytes <= budget && best.is_none_or(|best| cost < best) {
                best = Some(cost);
            }
        }
        best
    }

    fn any_items() -> impl Strategy<Value = Vec<Vec<Choice>>> {
        let option = (1u64..50, 0.0..10.0).prop_map(|(bytes, cost)| Choice { bytes, cost });
        proptest::collection::vec(proptest::collection::vec(option, 1..5), 1..5)
    }

    proptest! {
        #[test]
        fn the_budget_is_kept_and_an_answer_found_where_there_is_one(items in any_items(), budget in 0u64..150) {
            match (solve(&items, budget), exhaustive(&items, budget)) {
                (None, None) => {}
                (Some(chosen), Some(best)) => {
                    let (bytes, cost) = totals(&items, &chosen);
                    prop_assert!(bytes <= budget);
                    prop_assert!(cost >= best - 1e-9);
                    let smallest: Vec<usize> = items.iter().map(|options| hull(options)[0]).collect();
                    prop_assert!(cost <= totals(&items, &smallest).1 + 1e-9);
                }
                (found, best) => prop_assert!(false, "{found:?} {best:?}"),
            }
        }

        #[test]
        fn with_room_for_everything_each_item_gets_its_best(items in any_items()) {
            let chosen = solve(&items, 1 << 20).unwrap();
            for (options, at) in items.iter().zip(chosen) {
                let least = options.iter().map(|option| option.cost).fold(f64::MAX, f64::min);
                prop_assert_eq!(options[at].cost, least);
            }
        }
    }
}
