//! Specifications of a model's tensors: for each its name in GGUF, its shape, its role, and its
//! location in a Hugging Face checkpoint. Loading, conversion and the quantization plan all use
//! this list, so a family states its tensors once.

use std::ops::Range;

/// Role of a tensor, by which the quantizer decides how to treat it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Norm weights and biases: vectors kept in F32.
    Vector,
    /// Router weights, and the small gates of experts and recurrences, kept in F32: routing must
    /// not change.
    Router,
    /// Token embedding.
    Embedding,
    /// Output head.
    Output,
    /// Projections of attention.
    Attention,
    /// Feed-forward of layers without experts.
    DenseFfn,
    /// Shared experts, which every token uses.
    SharedExpert,
    /// Projections of the multi-token-prediction layer besides its block.
    Mtp,
}

/// Location of a tensor in a Hugging Face checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub enum HfTensor {
    /// The tensor with that name, unchanged.
    Whole(String),
    /// The key half of MLA's `kv_b_proj`, transposed: per head, `[kv_lora_rank, qk_nope_head_dim]`
    /// (rows by columns), heads stacked along the rows.
    KvBKey(String, KvB),
    /// The value half of `kv_b_proj`: per head `[v_head_dim, kv_lora_rank]`, heads stacked along
    /// the rows.
    KvBValue(String, KvB),
    /// Heads of that many rows, in which the checkpoint pairs rows for rotation by halves and GGUF
    /// by neighbours: rows i and i + half of a head become 2 i and 2 i + 1.
    Paired(String, usize),
    /// Every second column, starting with the first or the second.
    EverySecond(String, usize),
    /// Rows, or columns, of the tensor with that name, in another order or a part of them.
    Picked(String, Picked),
    /// A vector of which each number is derived from one of the tensor with that name.
    Applied(String, Function, Vec<usize>),
    /// Not in the checkpoint: derived from the configuration.
    Made(Vec<f32>),
}

/// Selection of rows or columns of a stored matrix.
#[derive(Clone, Debug, PartialEq)]
pub struct Picked {
    /// Rows, or columns.
    pub axis: Axis,
    /// Number of rows, or columns, in the checkpoint.
    pub stored: usize,
    /// Those that are taken, in their new order.
    pub ranges: Vec<Range<usize>>,
}

/// Direction in a matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Axis {
    /// Outputs.
    Rows,
    /// Inputs.
    Columns,
}

/// Function of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    /// `x + 1`: norms whose weights are stored around zero.
    PlusOne,
    /// `exp(x)`: rates that are stored as logarithms.
    Exp,
    /// `-exp(x)`: decays that are stored as logarithms.
    NegativeExp,
    /// `x`: vectors that have another shape in GGUF.
    Same,
}

impl Function {
    /// Applies the function.
    pub fn of(self, x: f32) -> f32 {
        match self {
            Self::PlusOne => x + 1.0,
            Self::Exp => libm::expf(x),
            Self::NegativeExp => -libm::expf(x),
            Self::Same => x,
        }
    }
}

/// Shape of `kv_b_proj`, which stacks, per head, rows for keys and rows for values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvB {
    /// Number of heads.
    pub heads: usize,
    /// Rows per head for keys.
    pub nope: usize,
    /// Rows per head for values.
    pub v: usize,
    /// Columns.
    pub rank: usize,
}

/// Location of a routed expert in a Hugging Face checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HfExpert {
    /// Gate, up and down as separate tensors.
    Separate([String; 3]),
    /// gpt-oss: all experts of a layer in the tensors `gate_up_proj` and `down_proj` below that
    /// name, inputs before outputs, or in MXFP4 as `gate_up_proj_blocks` and so on, outputs before
    /// inputs. Outputs of gate and up alternate.
    Stacked(String),
    /// All experts of a layer in two tensors with those names, outputs before inputs: gates and ups
    /// in the first, the outputs of an expert's gate before those of its up; downs in the second.
    Joined([String; 2]),
}

/// A tensor that is not a routed expert.
#[derive(Clone, Debug)]
pub struct TensorSpec {
    /// Name in GGUF; llama.cpp's name if it has one.
    pub name: String,
    /// Number of outputs; 1 for a vector.
    pub rows: usize,
    /// Number of inputs; the length of a vector.
    pub cols: usize,
    /// Role in the network.
    pub role: Role,
    /// Location in a checkpoint.
    pub hf: HfTensor,
    /// Whether a checkpoint may omit it.
    pub optional: bool,
}

impl TensorSpec {
    /// Index of its layer; `None` before the first layer and after the last.
    pub fn layer(&self) -> Option<usize> {
        self.name.strip_prefix("blk.")?.split('.').next()?.parse().ok()
    }
}

/// Index of a layer, in the order of the checkpoint; the MTP layer follows the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LayerId(pub usize);

/// Index of a routed expert within its layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExpertId(pub usize);

/// The three projections of one routed expert: gate and up `[moe_intermediate_size, hidden_size]`,
/// down `[hidden_size, moe_intermediate_size]`.
#[derive(Clone, Debug)]
pub struct ExpertSpec {
    /// Layer.
    pub layer: LayerId,
    /// Index in the layer.
    pub expert: ExpertId,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the expert.
    pub intermediate_size: usize,
    /// Location in a checkpoint.
    pub hf: HfExpert,
}

/// Projections of an expert, in stored order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Projection {
    /// Gate of SwiGLU.
    Gate = 0,
    /// Linear half of SwiGLU.
    Up = 1,
    /// Projection to the residual stream.
    Down = 2,
}

impl Projection {
    /// All projections, in stored order.
    pub const ALL: [Self; 3] = [Self::Gate, Self::Up, Self::Down];
}

impl ExpertSpec {
    /// Rows and columns of a projection.
    pub fn shape(&self, projection: Projection) -> (usize, usize) {
        match projection {
            Projection::Gate | Projection::Up => (self.intermediate_size, self.hidden_size),
            Projection::Down => (self.hidden_size, self.intermediate_size),
        }
    }

    /// Name of the expert's record in an expert-major file.
    pub fn record_name(&self) -> String {
        format!("blk.{}.ffn_expert.{}", self.layer.0, self.expert.0)
    }

    /// llama.cpp's name of the tensor that stacks this projection of all experts of the layer.
    pub fn stack_name(&self, projection: Projection) -> String {
        let projection = match projection {
            Projection::Gate => "gate",
            Projection::Up => "up",
            Projection::Down => "down",
        };
        format!("blk.{}.ffn_{projection}_exps.weight", self.layer.0)
    }

    /// llama.cpp's name of the tensor that stacks gates and ups together, an expert's gate before
    /// its up, in files that have it instead.
    pub fn joined_stack_name(&self) -> String {
        format!("blk.{}.ffn_gate_up_exps.weight", self.layer.0)
    }

    /// Name of a projection in reports and errors: the checkpoint's, if it stores it separately.
    pub fn projection_name(&self, projection: Projection) -> String {
        match &self.hf {
            HfExpert::Separate(names) => names[projection as usize].clone(),
            HfExpert::Joined([gate_up, down]) => {
                let name = if projection == Projection::Down { down } else { gate_up };
                format!("{name}.{}.{projection:?}", self.expert.0).to_lowercase()
            }
            HfExpert::Stacked(layer) => {
                format!("{layer}.{}.{projection:?}", self.expert.0).to_lowercase()
            }
        }
    }
}
