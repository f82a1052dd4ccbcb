"""Retrieval: who is this, and which image was seen."""

from neurostorm_bids.retrieval.images import ImageRetrieval, retrieve_images
from neurostorm_bids.retrieval.maps import fit_contrastive_map, fit_ridge_map
from neurostorm_bids.retrieval.people import Reidentification, reidentify
from neurostorm_bids.retrieval.ranks import RetrievalScores, rank_right, score_ranks
from neurostorm_bids.retrieval.stimuli import read_image_embeddings

__all__ = [
    "ImageRetrieval",
    "Reidentification",
    "RetrievalScores",
    "fit_contrastive_map",
    "fit_ridge_map",
    "rank_right",
    "read_image_embeddings",
    "reidentify",
    "retrieve_images",
    "score_ranks",
]
