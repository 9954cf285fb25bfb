"""The input videos, each identified by the digest of its bytes."""

from distinit.pipeline.corpus.listing import VIDEO_EXTENSIONS, Corpus, list_corpus

__all__ = ["VIDEO_EXTENSIONS", "Corpus", "list_corpus"]
