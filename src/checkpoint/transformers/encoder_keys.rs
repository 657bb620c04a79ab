//! Where public models keep the vision encoder's tensors: one table for each way to name them, read once
//! by the one loop that serves import and export.

use super::weights::KeyMap;
use crate::checkpoint::CheckpointError;
use crate::model::EncoderConfig;

/// The names of an encoder's tensors, without what stands before all of them.
pub(super) struct EncoderKeys {
    /// What embeds a patch.
    pub patches: Patches,
    /// Learned tokens before the patches: of these, as many as the model has.
    pub prefix: &'static [&'static str],
    /// More tokens behind those, which have no positions.
    pub registers: Option<&'static str>,
    /// The table of positions.
    pub positions: &'static str,
    /// The norm behind the embeddings.
    pub embedding_norm: Option<&'static str>,
    /// What stands before a layer's number.
    pub layers: &'static str,
    /// Within a layer: the norms before attention and feed-forward block.
    pub norms: [&'static str; 2],
    /// Queries, keys and values.
    pub attention: Attention,
    /// Attention's output.
    pub output: &'static str,
    /// The two maps of the feed-forward block.
    pub feed_forward: [&'static str; 2],
    /// The scales of the two branches.
    pub scales: Option<[&'static str; 2]>,
    /// The norm behind the last layer.
    pub final_norm: Option<&'static str>,
}

/// What embeds a patch.
pub(super) enum Patches {
    /// A convolution, `[d, 3, side, side]`.
    Convolution(&'static str),
    /// A map of patches whose channels lie side by side, `[d, side·side·3]`.
    ChannelsLast(&'static str),
}

/// Queries, keys and values.
pub(super) enum Attention {
    /// In one matrix.
    Joint(&'static str),
    /// In three.
    Separate([&'static str; 3]),
}

const BLIP_FILES: EncoderKeys = EncoderKeys {
    patches: Patches::Convolution("embeddings.patch_embedding"),
    prefix: &["embeddings.class_embedding"],
    registers: None,
    positions: "embeddings.position_embedding",
    embedding_norm: None,
    layers: "encoder.layers",
    norms: ["layer_norm1", "layer_norm2"],
    attention: Attention::Joint("self_attn.qkv"),
    output: "self_attn.projection",
    feed_forward: ["mlp.fc1", "mlp.fc2"],
    scales: None,
    final_norm: Some("post_layernorm"),
};

/// BLIP's, below `vision_model.`.
pub(super) static BLIP: [EncoderKeys; 1] = [BLIP_FILES];

/// As in the BLIP repository's own files, below `visual_encoder.`.
pub(super) static BLIP_ORIGINAL: [EncoderKeys; 1] = [EncoderKeys {
    patches: Patches::Convolution("patch_embed.proj"),
    prefix: &["cls_token"],
    positions: "pos_embed",
    layers: "blocks",
    norms: ["norm1", "norm2"],
    attention: Attention::Joint("attn.qkv"),
    output: "attn.proj",
    final_norm: Some("norm"),
    ..BLIP_FILES
}];

const VIT_FILES: EncoderKeys = EncoderKeys {
    patches: Patches::Convolution("embeddings.patch_embeddings.projection"),
    prefix: &["embeddings.cls_token", "embeddings.distillation_token"],
    registers: None,
    positions: "embeddings.position_embeddings",
    embedding_norm: None,
    layers: "encoder.layer",
    norms: ["layernorm_before", "layernorm_after"],
    attention: Attention::Separate([
        "attention.attention.query",
        "attention.attention.key",
        "attention.attention.value",
    ]),
    output: "attention.output.dense",
    feed_forward: ["intermediate.dense", "output.dense"],
    scales: None,
    final_norm: Some("layernorm"),
};

/// What transformers 5 calls attention's matrices in memory.
const PROJECTIONS: Attention =
    Attention::Separate(["attention.q_proj", "attention.k_proj", "attention.v_proj"]);

/// ViT's and DeiT's: as in files, and as transformers 5 has them in memory, which is what
/// `torch.save(model.state_dict())` and accelerate write.
pub(super) static VIT: [EncoderKeys; 2] = [
    VIT_FILES,
    EncoderKeys {
        layers: "layers",
        attention: PROJECTIONS,
        output: "attention.o_proj",
        feed_forward: ["mlp.fc1", "mlp.fc2"],
        ..VIT_FILES
    },
];

const DINOV2_FILES: EncoderKeys = EncoderKeys {
    prefix: &["embeddings.cls_token"],
    norms: ["norm1", "norm2"],
    feed_forward: ["mlp.fc1", "mlp.fc2"],
    scales: Some(["layer_scale1.lambda1", "layer_scale2.lambda1"]),
    ..VIT_FILES
};

/// DINOv2's, both ways.
pub(super) static DINOV2: [EncoderKeys; 2] = [
    DINOV2_FILES,
    EncoderKeys { attention: PROJECTIONS, output: "attention.o_proj", ..DINOV2_FILES },
];

const REGISTERS: Option<&str> = Some("embeddings.register_tokens");

/// The same with registers.
pub(super) static DINOV2_WITH_REGISTERS: [EncoderKeys; 2] = [
    EncoderKeys { registers: REGISTERS, ..DINOV2_FILES },
    EncoderKeys {
        registers: REGISTERS,
        attention: PROJECTIONS,
        output: "attention.o_proj",
        ..DINOV2_FILES
    },
];

const CLIP_FILES: EncoderKeys = EncoderKeys {
    patches: Patches::Convolution("embeddings.patch_embedding"),
    prefix: &["embeddings.class_embedding"],
    registers: None,
    positions: "embeddings.position_embedding.weight",
    // Spelt so.
    embedding_norm: Some("pre_layrnorm"),
    layers: "encoder.layers",
    norms: ["layer_norm1", "layer_norm2"],
    attention: Attention::Separate(["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]),
    output: "self_attn.out_proj",
    feed_forward: ["mlp.fc1", "mlp.fc2"],
    scales: None,
    final_norm: None,
};

/// CLIP's.
pub(super) static CLIP: [EncoderKeys; 1] = [CLIP_FILES];

const SIGLIP_FILES: EncoderKeys = EncoderKeys {
    prefix: &[],
    embedding_norm: None,
    final_norm: Some("post_layernorm"),
    ..CLIP_FILES
};

/// SigLIP's, and SigLIP 2's for images of one size.
pub(super) static SIGLIP: [EncoderKeys; 1] = [SIGLIP_FILES];

/// SigLIP 2's for images of any size (NaFlex).
pub(super) static SIGLIP2: [EncoderKeys; 1] =
    [EncoderKeys { patches: Patches::ChannelsLast("embeddings.patch_embedding"), ..SIGLIP_FILES }];

impl EncoderKeys {
    /// A tensor that every such encoder has.
    pub(super) fn anchor(&self) -> String {
        match self.patches {
            Patches::Convolution(name) | Patches::ChannelsLast(name) => format!("{name}.weight"),
        }
    }

    /// The names of all parameters, ours and theirs.
    fn map(
        &self,
        map: &mut impl KeyMap,
        before: &str,
        config: &EncoderConfig,
    ) -> Result<(), CheckpointError> {
        let theirs = |name: &str| format!("{before}{name}");
        match self.patches {
            Patches::Convolution(name) => map.patches(&theirs(name))?,
            Patches::ChannelsLast(name) => map.patches_channels_last(&theirs(name))?,
        }
        let prefix = config.num_prefix();
        let own = if self.registers.is_some() { self.prefix.len() } else { prefix };
        let mut tokens: Vec<String> =
            self.prefix.iter().take(own).map(|name| theirs(name)).collect();
        tokens.extend(self.registers.map(theirs));
        if prefix > 0 {
            let tokens: Vec<&str> = tokens.iter().map(String::as_str).collect();
            map.stacked("encoder.prefix_tokens", &tokens)?;
        }
        match prefix.saturating_sub(own) {
            0 => map.flat("encoder.position_embedding", &theirs(self.positions))?,
            gap => {
                map.gapped("encoder.position_embedding", &theirs(self.positions), own..own + gap)?
            }
        }
        if let Some(norm) = self.embedding_norm {
            map.norm("encoder.embedding_norm", &theirs(norm))?;
        }
        for layer in 0..config.num_layers {
            let ours = |part: &str| format!("encoder.layers.{layer}.{part}");
            let theirs = |name: &str| format!("{before}{}.{layer}.{name}", self.layers);
            let [attention_norm, feed_forward_norm] = self.norms;
            map.norm(&ours("attention_norm"), &theirs(attention_norm))?;
            map.norm(&ours("feed_forward_norm"), &theirs(feed_forward_norm))?;
            if let Some([attention, feed_forward]) = self.scales {
                map.copy(&ours("attention_scale"), &theirs(attention))?;
                map.copy(&ours("feed_forward_scale"), &theirs(feed_forward))?;
            }
            match self.attention {
                Attention::Joint(name) => map.joint(&ours("attention"), &theirs(name))?,
                Attention::Separate(names) => map.three(&ours("attention"), names.map(theirs))?,
            }
            map.linear(&ours("attention.output"), &theirs(self.output))?;
            let [hidden, output] = self.feed_forward;
            map.linear(&ours("feed_forward.hidden"), &theirs(hidden))?;
            map.linear(&ours("feed_forward.output"), &theirs(output))?;
        }
        match self.final_norm {
            Some(norm) => map.norm("encoder.final_norm", &theirs(norm)),
            None => Ok(()),
        }
    }
}

/// The names of all of an encoder's parameters, ours and theirs, in the first of several ways to name
/// them that is used. `before` stands before every name of theirs.
pub(super) fn map_encoder(
    map: &mut impl KeyMap,
    ways: &[EncoderKeys],
    before: &str,
    config: &EncoderConfig,
) -> Result<(), CheckpointError> {
    let used =
        |keys: &&EncoderKeys| map.has(&format!("{before}{}.0.{}.weight", keys.layers, keys.output));
    if map.follows_every_way() {
        return ways.iter().try_for_each(|keys| keys.map(map, before, config));
    }
    let usual = if map.in_memory() { ways.last() } else { ways.iter().find(used).or(ways.first()) };
    match usual {
        Some(keys) => keys.map(map, before, config),
        None => Ok(()),
    }
}
