# SPDX-License-Identifier: Apache-2.0
"""Writes a tiny llama-shaped GGUF model with random weights from a fixed seed.

The weights mean nothing, which is all the example needs: every logit depends on every byte of the
KV state, so restored state is either the saved state or visibly something else. The output head is
not tied to the embeddings; tied, each logit vector would mostly point back at its own input token
and say little about the state. The model has no vocabulary: tokens are raw ids.
"""

import sys

import gguf
import numpy

SEED = 0x6D656D6B76
LAYERS = 4
WIDTH = 256
HEADS = 4
KV_HEADS = 2
HEAD_WIDTH = WIDTH // HEADS
FEED_FORWARD = 512
VOCABULARY = 512
CONTEXT = 1024


def main(path: str) -> None:
    rng = numpy.random.Generator(numpy.random.PCG64(SEED))
    writer = gguf.GGUFWriter(path, "llama")
    add_parameters(writer)

    def matrix(name: str, rows: int, columns: int) -> None:
        weights = rng.standard_normal((rows, columns)) / numpy.sqrt(columns)
        writer.add_tensor(name, weights.astype(numpy.float32))

    def ones(name: str) -> None:
        writer.add_tensor(name, numpy.ones(WIDTH, dtype=numpy.float32))

    matrix("token_embd.weight", VOCABULARY, WIDTH)
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        ones(f"{block}.attn_norm.weight")
        matrix(f"{block}.attn_q.weight", HEADS * HEAD_WIDTH, WIDTH)
        matrix(f"{block}.attn_k.weight", KV_HEADS * HEAD_WIDTH, WIDTH)
        matrix(f"{block}.attn_v.weight", KV_HEADS * HEAD_WIDTH, WIDTH)
        matrix(f"{block}.attn_output.weight", WIDTH, HEADS * HEAD_WIDTH)
        ones(f"{block}.ffn_norm.weight")
        matrix(f"{block}.ffn_gate.weight", FEED_FORWARD, WIDTH)
        matrix(f"{block}.ffn_up.weight", FEED_FORWARD, WIDTH)
        matrix(f"{block}.ffn_down.weight", WIDTH, FEED_FORWARD)
    ones("output_norm.weight")
    matrix("output.weight", VOCABULARY, WIDTH)

    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_parameters(writer: gguf.GGUFWriter) -> None:
    writer.add_name("memkv tiny random llama")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_dimension_count(HEAD_WIDTH)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(VOCABULARY)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_tokenizer_model("no_vocab")


if __name__ == "__main__":
    main(sys.argv[1])
