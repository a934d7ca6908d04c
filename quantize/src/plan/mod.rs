//! Plans: the block type of every tensor, and of every projection of every expert.
//!
//! [`Plan::uniform`] assigns one type to all experts, and the [`DenseTypes`] that go with it;
//! [`mixed()`] distributes the bits under a size target by means of a [`Survey`];
//! [`Plan::as_stored`] keeps the types of the source.

mod allocation;
mod curve;
mod dense;
mod error;
mod knapsack;
mod map;
pub mod mixed;
mod survey;
pub(crate) mod types;

pub use allocation::Allocation;
pub use curve::Point;
pub use dense::DenseTypes;
pub use error::{PlanError, Target};
pub use map::map;
pub use mixed::mixed;
pub use survey::{Material, Survey};
pub(crate) use types::fit;
pub use types::{Plan, expert_layers, expert_specs};
