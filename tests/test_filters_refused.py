from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from agent_brain_postgres.errors import InvalidFilter, StorageError
from agent_brain_postgres.filters import compile_where
from tests.filter_queries import Metadata, nested


def itself() -> Metadata:
    where: Metadata = {}
    where["$and"] = [where]
    return where


def holding_itself() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ([("k", 1)], "a mapping, not list"),
        ("k", "a where filter is a mapping"),
        ({1: "x"}, "is a string, not int"),
        ({"$andd": [{"k": 1}]}, 'unknown operator "$andd"; did you mean $and?'),
        ({"$xor": [{"k": 1}]}, 'unknown operator "$xor"; did you mean $or?'),
        ({"$where": "1=1"}, 'unknown operator "$where"'),
        ({"$eq": 1}, "$eq belongs to a metadata key"),
        ({"k": {"$gte ": 1}}, 'where "k": unknown operator "$gte "; did you mean $gte?'),
        ({"k": {"$regex": "x"}}, 'unknown operator "$regex"'),
        ({"k": {"$GT": 1}}, 'unknown operator "$GT"; did you mean $gt?'),
        ({"k": {"gt": 1}}, '"gt" is not an operator; did you mean $gt?'),
        ({"k": {"$gt": 1, "x": 2}}, '"x" is not an operator'),
        ({"k": {"$or": [1, 2]}}, "$or goes around whole filters"),
        ({"k": {}}, 'where "k": an empty mapping'),
        ({"k": ["go", "c"]}, '{"$in": [...]}'),
        ({"k": {"$in": "go"}}, 'where "k": $in takes a list'),
        ({"k": {"$nin": None}}, "$nin takes a list of values, not null"),
        ({"k": {"$gt": True}}, "$gt takes a number or a string, not bool"),
        ({"k": {"$lt": None}}, "$lt takes a number or a string, not null"),
        ({"k": {"$lte": [1]}}, "$lte takes a number or a string, not list"),
        ({"k": {"$exists": 1}}, "$exists takes true or false, not int"),
        ({"k": {"$not": 1}}, "$not takes operators"),
        ({"$and": []}, "$and takes a list of one or more"),
        ({"$or": []}, "$or takes a list of one or more"),
        ({"$or": {"k": 1}}, "$or takes a list of one or more"),
        ({"$and": [{}]}, "an empty filter inside"),
        ({"$and": [1]}, "a mapping, not int"),
        ({"$not": {}}, "an empty filter inside"),
        ({"$not": [{"k": 1}]}, "a mapping, not list"),
        ({"k": math.nan}, 'where "k": NaN and infinity'),
        ({"k": {"$lt": -math.inf}}, "NaN and infinity"),
        ({"k": np.float32("inf")}, "NaN and infinity"),
        ({"k": Decimal("sNaN")}, "NaN and infinity"),
        ({"k": {"$in": [1, math.nan]}}, "NaN and infinity"),
        ({"k": 10**5000}, "too many digits"),
        ({"k": Decimal("1e999999")}, "too many digits"),
        ({"k": b"x"}, "cannot compare with bytes"),
        ({"k": object()}, "cannot compare with object"),
        (nested(5_000), "levels deep"),
        (itself(), "levels deep"),
        ({"k": {"$eq": holding_itself()}}, "levels deep"),
        ({"$or": [{"k": n} for n in range(20_001)]}, "$in takes any number of values"),
    ],
)
def test_a_malformed_filter_is_refused_by_name(where: Any, said: str) -> None:
    with pytest.raises(InvalidFilter) as refused:
        compile_where(where)
    assert said in str(refused.value)
    assert isinstance(refused.value, StorageError)
    assert len(str(refused.value)) < 300
