"""What a preference model should be better than: the longer reply, and which words a reply holds."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Pairs = Sequence[tuple[str, str]]


class BagOfWords:
    """Bradley–Terry on counts of words: P(a better) = σ(w · (x_a − x_b)), x = log(1 + count), ridge on w."""

    def __init__(self, pairs: Pairs, *, ridge: float = 1.0, words: int = 20_000) -> None:
        """`pairs` are (better, worse) texts."""
        from sklearn.feature_extraction.text import CountVectorizer
        from sklearn.linear_model import LogisticRegression

        self._vectorizer = CountVectorizer(max_features=words, token_pattern=r"(?u)\b\w+\b|[^\w\s]")
        self._vectorizer.fit([text for pair in pairs for text in pair])
        difference = self._differences(pairs)
        # every pair from both sides, so that no side is preferred
        from scipy.sparse import vstack

        both = vstack([difference, -difference])
        labels = np.repeat([1, 0], difference.shape[0])
        self._model = LogisticRegression(C=1 / ridge, fit_intercept=False, max_iter=1000).fit(both, labels)

    def margins(self, pairs: Pairs) -> NDArray[np.float64]:
        """Log-odds (n,) that the first text is the better."""
        found: NDArray[np.float64] = np.asarray(self._differences(pairs) @ self._model.coef_[0])
        return found

    def _differences(self, pairs: Pairs) -> Any:
        first, second = (self._vectorizer.transform([pair[k] for pair in pairs]).log1p() for k in (0, 1))
        return (first - second).tocsr()
