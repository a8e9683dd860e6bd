"""Operators at which channels stop on purpose, each with the reason; and those that the walk handles itself."""

from __future__ import annotations

from collections.abc import Mapping

from onnxprune.coupling.rule import Entry, Locked, Structural


def _reasons(table: Mapping[str, str]) -> dict[str, Entry]:
    """One entry per name of ``names -> reason``, where names are separated by blanks."""
    return {op: Locked(reason) for names, reason in table.items() for op in names.split()}


_CONTROL = Structural("its bodies are walked with the graph; what cannot cross their border stays")
STRUCTURAL: dict[str, Entry] = {
    "Constant": Structural("its value is a constant like any initializer"),
    "Shape": Structural("shape arithmetic: recomputed after a cut"),
    "Size": Structural("shape arithmetic: recomputed after a cut"),
    "If": _CONTROL,
    "Loop": _CONTROL,
    "Scan": _CONTROL,
}

_SEQUENCES = "keeps tensors in a sequence, whose members cannot be told apart before a run"
_RANDOM = "draws random numbers, which a cut would deal out differently"
_WINDOW = "makes a table from a size"
_FOUND = "finds as many elements as the data decide"
_TEXT = "works on text"
_LOSS = "computes a training loss over all classes"

TABLE: dict[str, Entry] = {
    **STRUCTURAL,
    **_reasons(
        {
            "SequenceAt SequenceConstruct SequenceEmpty SequenceErase SequenceInsert SequenceLength SequenceMap "
            "SplitToSequence ConcatFromSequence": _SEQUENCES,
            "Optional OptionalGetElement OptionalHasElement": "wraps a tensor as an optional value",
            "Bernoulli Multinomial RandomNormal RandomNormalLike RandomUniform RandomUniformLike": _RANDOM,
            "BlackmanWindow HammingWindow HannWindow MelWeightMatrix EyeLike Range": _WINDOW,
            "NonZero Unique": _FOUND,
            "NonMaxSuppression": "chooses boxes by comparing all of them",
            "RegexFullMatch StringConcat StringNormalizer StringSplit TfIdfVectorizer": _TEXT,
            "ImageDecoder": "decodes an image file",
            "NegativeLogLikelihoodLoss SoftmaxCrossEntropyLoss": _LOSS,
        }
    ),
}

ML: dict[str, Entry] = _reasons(
    {
        "ArrayFeatureExtractor Binarizer FeatureVectorizer Imputer Normalizer OneHotEncoder Scaler": (
            "prepares single feature columns of a classical model"
        ),
        "CastMap CategoryMapper DictVectorizer LabelEncoder ZipMap": "maps labels or dictionaries",
        "LinearClassifier LinearRegressor SVMClassifier SVMRegressor TreeEnsemble TreeEnsembleClassifier "
        "TreeEnsembleRegressor": "is a classical model whose coefficients are attributes of the node",
    }
)
TRAINING: dict[str, Entry] = _reasons({"Adagrad Adam Gradient Momentum": "is a step of training"})
#: What onnxruntime makes of convolutions when it optimizes for the processor that it runs on.
BLOCKED: dict[str, Entry] = _reasons(
    {
        "AveragePool Conv GlobalAveragePool GlobalMaxPool MaxPool ReorderInput ReorderOutput Upsample": (
            "keeps channels in blocks made for one processor: prune the model as it was before onnxruntime optimized it"
        )
    }
)
PREVIEW: dict[str, Entry] = _reasons(
    {"FlexAttention": "computes its scores with bodies of its own, which may look at any position"}
)

_GENERATION = "runs a decoder of its own, step by step"
_PACKED = "packs sequences of different lengths into one"
_SPARSE = "attends along a sparse pattern in a layout of its own"
_ORDERED = "keeps tensors in a memory order of one device"
_BLOCKS = "stores blocks of weights in a packed format of its own"
_EXPERTS = "routes every row to experts that it chooses at run time"
_DEVICE = "is a compiled part of one device"

MICROSOFT: dict[str, Entry] = _reasons(
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
            "keeps its keys and values in a cache of its own layout"
        ),
        "RelativePositionBias GatedRelativePositionBias": "makes a bias for every pair of positions",
        "GemmaRotaryEmbedding MRotaryEmbedding RMSNormRotary": "turns positions of one head against each other",
        "LinearAttention LinearAttentionGate GatedDeltaNet GatedDeltaNetStateReplay ConvStateReplay Mamba2Verify "
        "EngramGate GatedAdd": "carries a state in a layout of its own",
        "HyperConnectionLowRankMix HyperConnectionPostMix HyperConnectionPreMix BranchwiseRMSNorm": (
            "mixes parallel branches that it keeps in one axis"
        ),
        "BitmaskDropout BitmaskBiasDropout": "packs its mask into bits",
        "QEmbedLayerNormalization": "normalizes over the width of its embeddings",
        "AttnLSTM": "attends to a memory inside its recurrence",
        "ComplexMul ComplexMulConj Rfft Irfft": "keeps real and imaginary parts in its last axis",
        "Range": _WINDOW,
        "Unique IsAllFinite BifurcationDetector SpeculativePrefixCommit": _FOUND,
        "Tokenizer WordConvEmbedding MurmurHash3 NGramHashMapping NGramRepeatBlock": _TEXT,
        "DynamicTimeWarping": "aligns two series by dynamic programming",
        "SparseToDenseMatMul": "multiplies by a sparse tensor",
        "SampleOp": "is an example of an operator",
        "UnfoldTensor": "cuts an axis into overlapping windows",
        "GemmFastGelu": "has a bias whose broadcasting is not specified",
    }
)
