"""Tiny text encoders with random weights and a tokenizer trained on the spot."""

from pathlib import Path

WORDS = (
    "i you we love hate the dog garden work day is was great awful boring lovely how are tell me "
    "more about that sounds really nothing happened today agent listener : what a"
).split()


def tokenizer(folder: Path, special: list[str]) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordLevelTrainer(special_tokens=special)
    made.train_from_iterator([" ".join(WORDS)], trainer)
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[(t, made.token_to_id(t)) for t in ("[CLS]", "[SEP]")],
    )
    PreTrainedTokenizerFast(
        tokenizer_object=made,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
    ).save_pretrained(folder)


def encoder(folder: Path, kind: str) -> Path:
    """A folder in the Hugging Face layout: `bert` (encoder) or `bart` (encoder-decoder)."""
    import torch
    from transformers import BartConfig, BartModel, BertConfig, BertModel

    torch.manual_seed(0)
    tokenizer(folder, ["[PAD]", "[UNK]", "[CLS]", "[SEP]"])
    if kind == "bert":
        BertModel(
            BertConfig(
                vocab_size=64,
                hidden_size=32,
                num_hidden_layers=1,
                num_attention_heads=2,
                intermediate_size=64,
                max_position_embeddings=64,
            )
        ).save_pretrained(folder)
    else:
        BartModel(
            BartConfig(
                vocab_size=64,
                d_model=32,
                encoder_layers=1,
                decoder_layers=1,
                encoder_attention_heads=2,
                decoder_attention_heads=2,
                encoder_ffn_dim=64,
                decoder_ffn_dim=64,
                max_position_embeddings=64,
            )
        ).save_pretrained(folder)
    return folder
