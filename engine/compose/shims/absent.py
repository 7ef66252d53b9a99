"""Names that can be imported and not used: there is nothing behind them here, and whoever uses one is told so."""

from typing import Any, NoReturn

from sigmagraph.engine.errors import EngineError

__all__ = ["Absent", "NotHere", "absent", "absent_node", "names"]

# model families, their networks and encoders, and the mechanisms of ComfyUI's own model classes
TABLE = """
comfy.cldm.cldm ControlNet
comfy.clip_vision load Output clip_preprocess ClipVisionModel load_clipvision_from_sd
comfy.conds CONDRegular CONDNoiseShape CONDCrossAttn CONDConstant CONDList
comfy.context_windows IndexListContextHandler ContextSchedule ContextFuseMethod get_matching_context_schedule
comfy.context_windows create_prepare_sampling_wrapper create_sampler_sample_wrapper get_matching_fuse_method
comfy.controlnet ControlNetSD35 ControlLora ControlLoraOps T2IAdapter StrengthType
comfy.diffusers_convert convert_text_enc_state_dict convert_unet_state_dict
comfy.float stochastic_rounding
comfy.gligen Gligen load_gligen
comfy.hooks EnumHookScope EnumHookType Hook HookGroup WrapperHook
comfy.hooks HookKeyframe HookKeyframeGroup TransformerOptionsHook WeightHook
comfy.hooks set_hooks_for_conditioning create_hook_lora
comfy.ldm.anima.model Anima
comfy.ldm.anima.lllite LLLite AnimaLLLite
comfy.ldm.aura.mmdit DiTBlock DoubleAttention MMDiT MMDiTBlock SingleAttention
comfy.ldm.cascade.stage_a StageA
comfy.ldm.cascade.stage_c_coder StageC_coder
comfy.ldm.chroma.layers DoubleStreamBlock SingleStreamBlock
comfy.ldm.chroma.model Chroma
comfy.ldm.cosmos.predict2 Attention
comfy.ldm.flux.layers LastLayer apply_mod timestep_embedding
comfy.ldm.flux.layers DoubleStreamBlock EmbedND MLPEmbedder ModulationOut
comfy.ldm.flux.layers QKNorm RMSNorm SelfAttention SingleStreamBlock
comfy.ldm.flux.math apply_rope rope attention
comfy.ldm.flux.model Flux
comfy.ldm.flux.redux ReduxImageEncoder
comfy.ldm.hidream.model HiDreamAttention HiDreamImageBlock HiDreamImageSingleTransformerBlock
comfy.ldm.hidream.model HiDreamImageTransformer2DModel HiDreamImageTransformerBlock
comfy.ldm.lightricks.model LTXVModel TimestepEmbedding Timesteps
comfy.ldm.lightricks.model GuideAttentionMask _attention_with_guide_mask apply_rotary_emb precompute_freqs_cis
comfy.ldm.lightricks.symmetric_patchifier latent_to_pixel_coords
comfy.ldm.lightricks.vae.causal_conv3d CausalConv3d
comfy.ldm.lightricks.vae.causal_video_autoencoder Decoder Encoder ResnetBlock3D
comfy.ldm.lightricks.vae.pixel_norm PixelNorm
comfy.ldm.lumina.model FeedForward
comfy.ldm.minimax.model MiniMaxH3Model PackedLayout _mod_gate _mod_scale_shift
comfy.ldm.models.autoencoder AutoencoderKL
comfy.ldm.modules.attention BasicTransformerBlock CrossAttention SpatialTransformer FeedForward
comfy.ldm.modules.attention SpatialVideoTransformer default
comfy.ldm.modules.attention attention_flash attention_sage attention_xformers attention_sub_quad attention_split
comfy.ldm.modules.distributions.distributions DiagonalGaussianDistribution
comfy.ldm.modules.diffusionmodules.mmdit JointBlock MMDiT OpenAISignatureMMDITWrapper RMSNorm
comfy.ldm.modules.diffusionmodules.model ResnetBlock vae_attention
comfy.ldm.modules.diffusionmodules.openaimodel Downsample ResBlock TimestepEmbedSequential UNetModel Upsample
comfy.ldm.modules.diffusionmodules.openaimodel TimestepBlock VideoResBlock apply_control forward_timestep_embed
comfy.ldm.modules.diffusionmodules.util AlphaBlender timestep_embedding avg_pool_nd checkpoint zero_module
comfy.ldm.modules.diffusionmodules.util conv_nd linear normalization
comfy.ldm.modules.sub_quadratic_attention efficient_dot_product_attention
comfy.ldm.util exists
comfy.ldm.wan.model WanAttentionBlock WanSelfAttention
comfy.ldm.wan.model WanI2VCrossAttention WanModel WanT2VCrossAttention sinusoidal_embedding_1d
comfy.ldm.wan.vae CausalConv3d RMS_norm
comfy.k_diffusion.sampling BrownianTreeNoiseSampler DPMSolver
comfy.k_diffusion.sampling PIDStepSizeController BatchedBrownianTree get_sigmas_vp
comfy.ldm.common_dit pad_to_patch_size rms_norm
comfy.lora calculate_weight load_lora model_lora_keys_clip model_lora_keys_unet
comfy.model_base Anima BaseModel CLIPEmbeddingNoiseAugmentation Flux ModelType
comfy.model_base SD3 SDXL SDXLRefiner Timestep sdxl_pooled
comfy.model_base ACEStep Chroma CosmosVideo GenmoMochi HiDream HunyuanDiT HunyuanVideo HunyuanVideoI2V
comfy.model_base HunyuanVideoSkyreelsI2V LTXV Lumina2 PixArt SD15_instructpix2pix SDXL_instructpix2pix SVD_img2vid
comfy.model_base StableCascade_B StableCascade_C WAN21 WAN21_Camera WAN21_Vace convert_tensor
comfy.model_detection model_config_from_unet detect_unet_config unet_prefix_from_state_dict convert_config
comfy.model_detection count_blocks unet_config_from_diffusers_unet
comfy.model_patcher ModelPatcher set_model_options_patch_replace set_model_options_post_cfg_function
comfy.model_sampling CONST EPS V_PREDICTION ModelSamplingDiscrete ModelSamplingFlux time_snr_shift
comfy.model_sampling ModelSamplingContinuousEDM ModelSamplingDiscreteFlow EDM X0 IMG_TO_IMG StableCascadeSampling
comfy.model_sampling ModelSamplingContinuousV ModelSamplingCosmosRFlow COSMOS_RFLOW
comfy.nested_tensor NestedTensor
comfy.ops cast_bias_weight disable_weight_init manual_cast cast_to cast_to_input linear_input_act
comfy.ops pick_operations uncast_bias_weight
comfy.patcher_extension CallbacksMP PatcherInjection WrapperExecutor WrappersMP add_wrapper_with_key
comfy.patcher_extension get_all_wrappers get_wrappers_with_key
comfy.quant_ops ck QuantizedTensor
comfy.sample sample sample_custom
comfy.sampler_helpers prepare_sampling
comfy.samplers CFGGuider KSAMPLER KSamplerX0Inpaint Sampler
comfy.samplers calc_cond_batch cfg_function process_conds sampler_object
comfy.samplers sample sampling_function calculate_sigmas can_concat_cond
comfy.samplers cond_cat get_area_and_mult ksampler wrap_model CFGNoisePredictor
comfy.samplers apply_empty_x_to_equal_area calculate_start_end_timesteps create_cond_with_same_area_if_none
comfy.samplers encode_model_conds pre_run_control resolve_areas_and_cond_masks
comfy.sd CLIP CLIPType VAE load_clip
comfy.sd load_lora_for_models load_unet load_diffusion_model_state_dict load_checkpoint load_style_model
comfy.sd load_text_encoder_state_dicts load_unet_state_dict
comfy.sd1_clip ClipTokenWeightEncoder SD1ClipModel SD1Tokenizer SDClipModel SDTokenizer expand_directory_list
comfy.sd3_clip SD3ClipModel SD3Tokenizer T5XXLModel
comfy.sdxl_clip SDXLClipG SDXLClipModel SDXLRefinerClipModel SDXLTokenizer StableCascadeClipModel
comfy.supported_models SD15 SD20 SD3 SDXL SDXLRefiner Flux Stable_Cascade_C models AuraFlow Chroma CosmosI2V CosmosT2V
comfy.supported_models FluxSchnell GenmoMochi HiDream HunyuanDiT HunyuanVideo HunyuanVideoI2V HunyuanVideoSkyreelsI2V
comfy.supported_models LTXV SVD_img2vid WAN21_I2V WAN21_T2V
comfy.supported_models_base BASE ClipTarget
comfy.taesd.taehv TAEHV apply_model_with_memblocks conv
comfy.taesd.taesd Block Clamp TAESD conv
comfy.text_encoders.flux FluxClipModel
comfy.text_encoders.sd3_clip SD3ClipModel SD3Tokenizer T5XXLModel
comfy.utils unet_to_diffusers weight_dtype
comfy_api.torch_helpers set_torch_compile_wrapper
comfy_api.latest InputImpl Types
comfy_extras.chainner_models.model_loading load_state_dict
comfy_extras.nodes_custom_sampler Guider_DualCFG
comfy_extras.nodes_lt _append_guide_attention_entry get_keyframe_idxs get_noise_mask
comfy_extras.nodes_sag create_blur_map gaussian_blur_2d
comfy_extras.nodes_stable3d camera_embeddings
latent_preview Latent2RGBPreviewer LatentPreviewer TAESDPreviewerImpl TAESD
"""


class NotHere(EngineError):
    """A pack used something of ComfyUI's that this engine does not have."""

    code = "not_here"


class Absent(type):
    """The class of names without anything behind them: nothing is an instance of one, and making one is an error."""

    path = ""

    def __call__(cls, *_: Any, **__: Any) -> NoReturn:
        raise NotHere(f"{cls.path} of ComfyUI is not part of this engine; docs/packs.md lists what packs can use")

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return absent(f"{cls.path}.{name}")


def absent(path: str) -> Any:
    """A name for something this engine does not have; classes may derive from it."""
    made = Absent(path.rpartition(".")[2], (), {})
    made.path = path
    return made


def absent_node(path: str) -> Any:
    """A node class that this engine does not have: packs make objects of it at their top, and call some of them."""

    def refuse(self: Any, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        raise NotHere(f"the node {path} of ComfyUI is not part of this engine; docs/packs.md lists what packs can use")

    return type(path.rpartition(".")[2], (), {"__getattr__": refuse})


def names() -> dict[str, dict[str, Any]]:
    """Every name of the table, and the modules they are in."""
    found: dict[str, dict[str, Any]] = {}
    for line in TABLE.split("\n"):
        module, *listed = line.split() or [""]
        if module:
            found.setdefault(module, {}).update({name: absent(f"{module}.{name}") for name in listed})
    return found
