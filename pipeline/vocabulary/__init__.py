"""Vocabularies: text embeddings that turn the stored features of a teacher into logits."""
