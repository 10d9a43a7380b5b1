"""Classes that draw from a text and are not in the zoo, each with its reason."""

from __future__ import annotations

from collections.abc import Mapping

_CASCADE = "two diffusion models, one behind the other"
_GIVEN_FRAMES = "goes on from given frames; without them it is the plain class of its family"
_NO_PICTURES = "draws no pictures"

LEFT_OUT: Mapping[str, str] = {
    "AceStepPipeline": _NO_PICTURES,
    "AnyFlowFARPipeline": "draws chunk after chunk, each from the keys and values of those before",
    "Cosmos2VideoToWorldPipeline": _GIVEN_FRAMES,
    "Cosmos3OmniPipeline": "one caption a call, and latents without rows",
    "CosmosVideoToWorldPipeline": _GIVEN_FRAMES,
    "DiffusionGemmaPipeline": _NO_PICTURES,
    "DreamLiteMobilePipeline": "one caption a call, and takes no latents",
    "DreamLitePipeline": "one caption a call, and takes no latents",
    "FluxFillPipeline": "fills a hole in a given picture",
    "FluxKontextPipeline": "changes a given picture; without one it is Flux",
    "HeliosPyramidPipeline": "denoises at three sizes, one after the other",
    "HunyuanImageRefinerPipeline": "refines a given picture",
    "KandinskyCombinedPipeline": _CASCADE,
    "KandinskyV22CombinedPipeline": _CASCADE,
    "KolorsPipeline": "needs sentencepiece to be imported",
    "LDMTextToImagePipeline": "of 2021, with a text encoder of its own and no embeddings",
    "LLaDA2Pipeline": _NO_PICTURES,
    "LTX2ConditionPipeline": _GIVEN_FRAMES,
    "LTX2DFRPipeline": _GIVEN_FRAMES,
    "LTX2DFRTemporalRefinePipeline": _GIVEN_FRAMES,
    "LTX2HDRPipeline": _GIVEN_FRAMES,
    "LTX2InContextPipeline": _GIVEN_FRAMES,
    "LongCatAudioDiTPipeline": _NO_PICTURES,
    "OmniGenPipeline": "needs torchvision to be made",
    "QwenImageLayeredPipeline": "takes a given picture apart",
    "ShapEPipeline": "draws shapes in three dimensions",
    "StableUnCLIPPipeline": _CASCADE,
    "StableCascadeCombinedPipeline": _CASCADE,
    "WanVACEPipeline": "draws after a given video and its mask",
    "ZImageOmniPipeline": "reads given pictures; without them it is Z-Image",
}
