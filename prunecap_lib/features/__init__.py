"""Stored features: what a frozen encoder says of every picture, written once, so that training need not ask again."""

from .build import FEATURES
from .cache import FeatureCache, check_cache_folder, default_folder
from .forecast import forecast_features

__all__ = ["FEATURES", "FeatureCache", "check_cache_folder", "default_folder", "forecast_features"]
