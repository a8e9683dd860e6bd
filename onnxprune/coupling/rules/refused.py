"""Operators at which channels stop on purpose, with the reason, and operators that the walk over the graph handles."""

from __future__ import annotations

from collections.abc import Mapping

from onnxprune.coupling.rule import Locked, RuleEntry, Structural


def _reasons(table: Mapping[str, str]) -> dict[str, RuleEntry]:
    """One entry per name.  ``table`` maps names, separated by blanks, to their reason."""
    return {op: Locked(reason) for names, reason in table.items() for op in names.split()}


_CONTROL = Structural("channels pass into its bodies; channels that cannot cross the border stay")
STRUCTURAL: dict[str, RuleEntry] = {
    "Constant": Structural("its value is a constant like any initializer"),
    "Shape": Structural("shape arithmetic: recomputed after a cut"),
    "Size": Structural("shape arithmetic: recomputed after a cut"),
    "If": _CONTROL,
    "Loop": _CONTROL,
    "Scan": _CONTROL,
}

_SEQUENCES = "keeps tensors in a sequence, whose members are known only at run time"
_RANDOM = "draws random numbers, and a cut would change the draws"
_WINDOW = "makes a table from a size"
_DATA_SIZED = "returns as many elements as the data decide"
_TEXT = "works on text"
_LOSS = "computes a training loss over all classes"

TABLE: dict[str, RuleEntry] = {
    **STRUCTURAL,
    **_reasons(
        {
            "SequenceAt SequenceConstruct SequenceEmpty SequenceErase SequenceInsert SequenceLength SequenceMap "
            "SplitToSequence ConcatFromSequence": _SEQUENCES,
            "Optional OptionalGetElement OptionalHasElement": "wraps a tensor as an optional value",
            "Bernoulli Multinomial RandomNormal RandomNormalLike RandomUniform RandomUniformLike": _RANDOM,
            "BlackmanWindow HammingWindow HannWindow MelWeightMatrix EyeLike Range": _WINDOW,
            "NonZero Unique": _DATA_SIZED,
            "NonMaxSuppression": "selects boxes by comparing all of them",
            "RegexFullMatch StringConcat StringNormalizer StringSplit TfIdfVectorizer": _TEXT,
            "ImageDecoder": "decodes an image file",
            "NegativeLogLikelihoodLoss SoftmaxCrossEntropyLoss": _LOSS,
        }
    ),
}

ML: dict[str, RuleEntry] = _reasons(
    {
        "ArrayFeatureExtractor Binarizer FeatureVectorizer Imputer Normalizer OneHotEncoder Scaler": (
            "prepares single feature columns of a classical model"
        ),
        "CastMap CategoryMapper DictVectorizer LabelEncoder ZipMap": "maps labels or dictionaries",
        "LinearClassifier LinearRegressor SVMClassifier SVMRegressor TreeEnsemble TreeEnsembleClassifier "
        "TreeEnsembleRegressor": "is a classical model with its coefficients in node attributes",
    }
)
TRAINING: dict[str, RuleEntry] = _reasons({"Adagrad Adam Gradient Momentum": "is a step of training"})
#: Operators that onnxruntime writes when it optimizes convolutions for its own processor.
BLOCKED: dict[str, RuleEntry] = _reasons(
    {
        "AveragePool Conv GlobalAveragePool GlobalMaxPool MaxPool ReorderInput ReorderOutput Upsample": (
            "keeps channels in blocks for one processor: prune the model that onnxruntime has not optimized yet"
        )
    }
)
PREVIEW: dict[str, RuleEntry] = _reasons(
    {"FlexAttention": "computes its scores in its own bodies, which may read any position"}
)

_GENERATION = "runs its own decoder, step by step"
_PACKED = "packs sequences of different lengths into one"
_SPARSE = "attends along a sparse pattern in its own layout"
_ORDERED = "keeps tensors in the memory order of one device"
_BLOCKS = "stores blocks of weights in its own packed format"
_EXPERTS = "routes every row to experts chosen at run time"
_DEVICE = "is code compiled for one device"

MICROSOFT: dict[str, RuleEntry] = _reasons(
    {
        "BeamSearch GreedySearch Sampling WhisperBeamSearch": _GENERATION,
        "PackedAttention PackedMultiHeadAttention RemovePadding RestorePadding VarlenCausalConvWithState "
        "VarlenNGramHashMapping": _PACKED,
        "PagedAttention SparsePagedAttention SparseAttention SparseAttentionIndexer PackedSparseAttentionIndexer "
        "PackedSparseAttentionIndexerMerge DynamicSparseAttention LongformerAttention": _SPARSE,
        "QOrderedAttention QOrderedGelu QOrderedLayerNormalization QOrderedLongformerAttention QOrderedMatMul "
        "QuantizeWithOrder DequantizeWithOrder": _ORDERED,
        "MatMulBnb4 MatMulFpQ4 MatMulBlockQuantizedFp4Weight MatMulBlockQuantizedFp8Weight MatMulNBitsMlp "
        "MatMulNBitsQLoRA MatMulNBitsQkv MatMulPacked GatherBlockQuantized GatherPacked QuantizeBFP DequantizeBFP "
        "GemmFloat8": _BLOCKS,
        "MoE QMoE MoEPacked MoEGroupRouter RouterGateUpProj": _EXPERTS,
        "EPContext Snpe": _DEVICE,
        "DecoderAttention DecoderMaskedMultiHeadAttention DecoderMaskedSelfAttention": (
            "keeps its keys and values in a cache with its own layout"
        ),
        "RelativePositionBias GatedRelativePositionBias": "makes a bias for every pair of positions",
        "GemmaRotaryEmbedding MRotaryEmbedding RMSNormRotary": "rotates pairs of positions of one head",
        "LinearAttention LinearAttentionGate GatedDeltaNet GatedDeltaNetStateReplay ConvStateReplay Mamba2Verify "
        "EngramGate GatedAdd": "carries a state in its own layout",
        "HyperConnectionLowRankMix HyperConnectionPostMix HyperConnectionPreMix BranchwiseRMSNorm": (
            "mixes parallel branches stored along one axis"
        ),
        "BitmaskDropout BitmaskBiasDropout": "packs its mask into bits",
        "QEmbedLayerNormalization": "normalizes over the width of its embeddings",
        "AttnLSTM": "attends to a memory inside its recurrence",
        "ComplexMul ComplexMulConj Rfft Irfft": "keeps real and imaginary parts in its last axis",
        "Range": _WINDOW,
        "Unique IsAllFinite BifurcationDetector SpeculativePrefixCommit": _DATA_SIZED,
        "Tokenizer WordConvEmbedding MurmurHash3 NGramHashMapping NGramRepeatBlock": _TEXT,
        "DynamicTimeWarping": "aligns two series by dynamic programming",
        "SparseToDenseMatMul": "multiplies by a sparse tensor",
        "SampleOp": "is an example of an operator",
        "UnfoldTensor": "cuts an axis into overlapping windows",
        "GemmFastGelu": "has a bias whose broadcasting is not specified",
    }
)
