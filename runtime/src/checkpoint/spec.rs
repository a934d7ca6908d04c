//! What tensors a model consists of: for each its name in GGUF, its shape, its part in the network and
//! where a Hugging Face checkpoint keeps it. Loading, conversion and the bit plan are all driven by
//! this list, so a family states its tensors once.

/// The part a tensor plays; it decides how the quantizer treats it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Norm weights, biases: vectors kept in F32.
    Vector,
    /// The router's weights, kept in F32: routing must not change.
    Router,
    /// The token embedding.
    Embedding,
    /// The output head.
    Output,
    /// Projections of attention.
    Attention,
    /// The feed-forward of layers without experts.
    DenseFfn,
    /// The experts that every token visits.
    SharedExpert,
    /// Projections of the multi-token-prediction layer besides its block.
    Mtp,
}

/// Where a Hugging Face checkpoint keeps a tensor.
#[derive(Clone, Debug, PartialEq)]
pub enum HfTensor {
    /// The tensor of that name, as it is.
    Whole(String),
    /// The key half of MLA's `kv_b_proj`, transposed: per head, `[kv_lora_rank, qk_nope_head_dim]`
    /// (rows by columns), heads stacked along the rows.
    KvBKey(String, KvB),
    /// The value half of `kv_b_proj`: per head `[v_head_dim, kv_lora_rank]`, heads stacked along the rows.
    KvBValue(String, KvB),
    /// Heads of that many rows, which the checkpoint rotates by halves and GGUF by neighbours: a head's rows i and
    /// i + half become 2 i and 2 i + 1.
    Paired(String, usize),
    /// Every second column, from the first or the second on.
    EverySecond(String, usize),
    /// Nowhere: it follows from the configuration.
    Made(Vec<f32>),
}

/// Shape of `kv_b_proj`, which stacks, per head, rows that make keys and rows that make values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvB {
    /// Heads.
    pub heads: usize,
    /// Rows of keys per head.
    pub nope: usize,
    /// Rows of values per head.
    pub v: usize,
    /// Columns.
    pub rank: usize,
}

/// Where a Hugging Face checkpoint keeps a routed expert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HfExpert {
    /// Gate, up and down, each a tensor.
    Separate([String; 3]),
    /// gpt-oss: all experts of a layer in the tensors `gate_up_proj` and `down_proj` below that name, inputs before
    /// outputs, or in MXFP4 as `gate_up_proj_blocks` and so on, outputs before inputs. The outputs of gate and up
    /// alternate.
    Stacked(String),
}

/// One tensor that is not a routed expert.
#[derive(Clone, Debug)]
pub struct TensorSpec {
    /// Its name in GGUF, llama.cpp's where it has one.
    pub name: String,
    /// Outputs; 1 for a vector.
    pub rows: usize,
    /// Inputs; the length of a vector.
    pub cols: usize,
    /// Its part in the network.
    pub role: Role,
    /// Where a checkpoint keeps it.
    pub hf: HfTensor,
    /// Whether a checkpoint may leave it out.
    pub optional: bool,
}

impl TensorSpec {
    /// The layer it belongs to; `None` for what comes before the first and after the last.
    pub fn layer(&self) -> Option<usize> {
        self.name.strip_prefix("blk.")?.split('.').next()?.parse().ok()
    }
}

/// A layer in the order of the checkpoint; the MTP layer is the one after the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LayerId(pub usize);

/// A routed expert within its layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExpertId(pub usize);

/// The three projections of one routed expert: gate and up `[moe_intermediate_size, hidden_size]`, down
/// `[hidden_size, moe_intermediate_size]`.
#[derive(Clone, Debug)]
pub struct ExpertSpec {
    /// Its layer.
    pub layer: LayerId,
    /// Its number in the layer.
    pub expert: ExpertId,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the expert.
    pub intermediate_size: usize,
    /// Where a checkpoint keeps it.
    pub hf: HfExpert,
}

/// The projections of an expert, in stored order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Projection {
    /// The gate of SwiGLU.
    Gate = 0,
    /// The linear half of SwiGLU.
    Up = 1,
    /// Back to the residual stream.
    Down = 2,
}

impl Projection {
    /// All three, in stored order.
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

    /// The name of the expert's record in an expert-major file.
    pub fn record_name(&self) -> String {
        format!("blk.{}.ffn_expert.{}", self.layer.0, self.expert.0)
    }

    /// llama.cpp's name of the stack that holds this projection of all of the layer's experts.
    pub fn stack_name(&self, projection: Projection) -> String {
        let projection = match projection {
            Projection::Gate => "gate",
            Projection::Up => "up",
            Projection::Down => "down",
        };
        format!("blk.{}.ffn_{projection}_exps.weight", self.layer.0)
    }

    /// How reports and errors name a projection: as the checkpoint does, where it keeps it apart.
    pub fn projection_name(&self, projection: Projection) -> String {
        match &self.hf {
            HfExpert::Separate(names) => names[projection as usize].clone(),
            HfExpert::Stacked(layer) => {
                format!("{layer}.{}.{projection:?}", self.expert.0).to_lowercase()
            }
        }
    }
}
