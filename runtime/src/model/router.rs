//! The router: chooses and weighs the experts of a token (DeepSeek-V2, section 2.2; V3, section
//! 2.1.2).

use super::Compute;
use super::linear::add_bias;
use super::store::{Preference, Slot};
use crate::blocks::Matrix;
use crate::checkpoint::ExpertId;
use crate::checkpoint::config::{MoeConfig, Scoring, TopkMethod};
use crate::isa::Tier;
use crate::kernels::scan::all_finite;
use crate::kernels::vector::{Sigmoid, Softmax};
use crate::kernels::{Activations, matmul};

/// The router of one layer.
#[derive(Clone, Debug)]
pub struct Router {
    /// `[n_routed_experts, hidden_size]`
    pub weight: Matrix,
    /// Added to the logits, `[n_routed_experts]` (gpt-oss).
    pub bias: Option<Vec<f32>>,
    /// V3's `e_score_correction_bias`, `[n_routed_experts]`: affects the choice of experts, not
    /// their weights.
    pub correction: Option<Vec<f32>>,
    /// Factors on the weights, `[n_routed_experts]` (Gemma 4).
    pub scale: Option<Vec<f32>>,
}

impl Router {
    /// Returns the slots of each token, `num_experts_per_tok` per token, best first. A preference
    /// affects the choice of experts, never their weights.
    pub fn route(
        &self,
        ctx: &Compute,
        config: &MoeConfig,
        x: &Activations,
        preference: Option<&Preference>,
    ) -> Vec<Slot> {
        let mut logits = vec![0.0; x.tokens() * config.n_routed_experts];
        matmul(ctx.tier, ctx.pool, &self.weight, x, &mut logits);
        if let Some(bias) = &self.bias {
            add_bias(ctx, bias, &mut logits);
        }
        let choose = |logits: &mut [f32]| self.choose(ctx.tier, config, logits, preference);
        logits.chunks_exact_mut(config.n_routed_experts).flat_map(choose).collect()
    }

    /// The slots of one token from its logits, `[n_routed_experts]`.
    fn choose(
        &self,
        tier: Tier,
        config: &MoeConfig,
        logits: &mut [f32],
        preference: Option<&Preference>,
    ) -> Vec<Slot> {
        // Non-finite logits allow no choice: NaN weights propagate to all results.
        if !all_finite(logits) {
            let slot = |e| Slot { expert: ExpertId(e), weight: f32::NAN };
            return (0..config.num_experts_per_tok).map(slot).collect();
        }
        // s_{i,t} = Softmax_i(u_t e_i), V2 equation 22; Sigmoid(u_t e_i), V3 equation 15
        match config.scoring_func {
            Scoring::Softmax => tier.run(Softmax(logits)),
            Scoring::Sigmoid => tier.run(Sigmoid(logits)),
        }
        let scores = &*logits;
        // s_{i,t} + b_i: V3 equation 16
        let choice: Vec<f32> = match &self.correction {
            Some(bias) => scores.iter().zip(bias).map(|(score, bias)| score + bias).collect(),
            None => scores.to_vec(),
        };
        // device- or node-limited routing: V2 section 2.2.2; V3 section 2.1.2
        let groups: Vec<usize> = match config.topk_method {
            TopkMethod::Greedy => (0..config.n_group).collect(),
            TopkMethod::GroupLimitedGreedy => best_groups(config, &choice, 1),
            TopkMethod::NoauxTc => best_groups(config, &choice, 2),
        };
        let per_group = config.n_routed_experts / config.n_group;
        let mut chosen: Vec<usize> =
            groups.into_iter().flat_map(|g| g * per_group..(g + 1) * per_group).collect();
        // Topk({s_{i,t}}, K_r): V2 equation 21, V3 equation 14
        let per_token = config.num_experts_per_tok;
        let wanted = if preference.is_some() { chosen.len() } else { per_token };
        best_first(&mut chosen, &choice, wanted);
        if let Some(preference) = preference {
            prefer(&mut chosen, &choice, per_token, preference);
        }
        chosen.truncate(per_token);
        // g_{i,t}: V3 equation 13; V2 does not normalize
        let sum: f32 = chosen.iter().map(|&e| scores[e]).sum();
        let norm = if config.norm_topk_prob { sum + 1e-20 } else { 1.0 };
        let factor = |e: usize| match &self.scale {
            Some(scale) => config.routed_scaling_factor * scale[e],
            None => config.routed_scaling_factor,
        };
        let weight = |e: usize| scores[e] / norm * factor(e);
        chosen.into_iter().map(|e| Slot { expert: ExpertId(e), weight: weight(e) }).collect()
    }
}

/// The `topk_group` groups whose `best` best experts add up to the most.
fn best_groups(config: &MoeConfig, choice: &[f32], best: usize) -> Vec<usize> {
    let group_score = |group: &[f32]| -> f32 {
        let mut scores = group.to_vec();
        scores.sort_by(|a, b| b.total_cmp(a));
        scores.iter().take(best).sum()
    };
    let per_group = config.n_routed_experts / config.n_group;
    let scores: Vec<f32> = choice.chunks_exact(per_group).map(group_score).collect();
    let mut groups: Vec<usize> = (0..config.n_group).collect();
    best_first(&mut groups, &scores, config.topk_group);
    groups.truncate(config.topk_group);
    groups
}

/// Replaces chosen experts that are not preferred, worst first, by the best preferred experts that
/// were not chosen, as far as their scores are within the margin. The first `chosen` candidates are
/// the choice.
fn prefer(candidates: &mut [usize], choice: &[f32], chosen: usize, preference: &Preference) {
    let preferred = |e: usize| preference.preferred.get(e).copied().unwrap_or(false);
    let (chosen, others) = candidates.split_at_mut(chosen.min(candidates.len()));
    let mut others = others.iter_mut().filter(|e| preferred(**e));
    for place in chosen.iter_mut().rev().filter(|e| !preferred(**e)) {
        let Some(other) = others.next() else { break };
        let least = choice[*place] - preference.margin * choice[*place].abs();
        if choice[*other] < least {
            break; // all that follow are worse, and so is every place before
        }
        std::mem::swap(place, other);
    }
    best_first(chosen, choice, chosen.len());
}

/// Moves the best `wanted` items to the front, best first; ties are ordered by number, so that the
/// order is the same everywhere. That of the others is not defined.
fn best_first(items: &mut [usize], scores: &[f32], wanted: usize) {
    let order = |a: &usize, b: &usize| scores[*b].total_cmp(&scores[*a]).then(a.cmp(b));
    let wanted = wanted.min(items.len());
    if 0 < wanted && wanted < items.len() {
        items.select_nth_unstable_by(wanted - 1, order);
    }
    items[..wanted].sort_unstable_by(order);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(topk_method: TopkMethod) -> MoeConfig {
        MoeConfig {
            n_routed_experts: 6,
            num_experts_per_tok: 2,
            moe_intermediate_size: 32,
            scoring_func: Scoring::Sigmoid,
            topk_method,
            n_group: 3,
            norm_topk_prob: true,
            routed_scaling_factor: 2.0,
            ..MoeConfig::DENSE
        }
    }

    fn chosen(config: &MoeConfig, correction: Option<Vec<f32>>, logits: [f32; 6]) -> Vec<usize> {
        let weight = Matrix::from_f32(6, 1, &[0.0; 6]).unwrap();
        let router = Router { weight, bias: None, correction, scale: None };
        let slots = router.choose(Tier::best(), config, &mut { logits }, None);
        assert!((slots.iter().map(|slot| slot.weight).sum::<f32>() - 2.0).abs() < 1e-5);
        slots.iter().map(|slot| slot.expert.0).collect()
    }

    #[test]
    fn greedy_takes_the_best_of_all_and_ties_go_to_the_lower_number() {
        let config = config(TopkMethod::Greedy);
        assert_eq!(chosen(&config, None, [0.0, 3.0, 1.0, 2.0, 3.0, 0.0]), [1, 4]);
    }

    #[test]
    fn group_limited_greedy_stays_in_the_group_of_the_best_expert() {
        let config = config(TopkMethod::GroupLimitedGreedy);
        assert_eq!(chosen(&config, None, [0.0, 3.0, 2.5, 2.5, 2.0, 0.0]), [1, 0]);
    }

    #[test]
    fn noaux_tc_ranks_groups_by_their_two_best_and_the_bias_moves_the_choice() {
        let config = config(TopkMethod::NoauxTc);
        assert_eq!(chosen(&config, None, [-2.0, 3.0, 2.5, 2.5, 2.0, 0.0]), [2, 3]);
        let bias = vec![0.0, 0.0, 0.0, 0.0, 1.0, 1.0];
        assert_eq!(chosen(&config, Some(bias), [-2.0, 3.0, 2.5, 2.5, 2.0, 0.0]), [4, 5]);
    }

    #[test]
    fn a_preferred_expert_takes_a_place_only_where_the_scores_are_near() {
        let choice = [0.9, 0.5, 0.48, 0.3, 0.1];
        let chosen = |preferred: [bool; 5], margin| {
            let preference = Preference { preferred: preferred.to_vec(), margin };
            let mut candidates = vec![0, 1, 2, 3, 4];
            prefer(&mut candidates, &choice, 2, &preference);
            candidates.truncate(2);
            candidates
        };
        let third = [false, false, true, false, false];
        assert_eq!(chosen(third, 0.1), [0, 2]);
        assert_eq!(chosen(third, 0.01), [0, 1]);
        assert_eq!(chosen([true; 5], 1.0), [0, 1]);
        let last_two = [false, false, false, true, true];
        assert_eq!(chosen(last_two, 0.5), [0, 3]);
        assert_eq!(chosen(last_two, 1.0), [3, 4]);
    }
}
