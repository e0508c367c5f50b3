"""What a user of the openai package for Python does with a provider, against one that was started.

In: TUSSAH_URL (its /v1), TUSSAH_KEY, the models `chat` and `embeddings` deployed. Out: exit code 0, or the first
thing that is not as with OpenAI. It changes nothing but the provider's ledger.
"""

import json
import math
import os
import time

import openai
from openai import OpenAI

client = OpenAI(base_url=os.environ["TUSSAH_URL"], api_key=os.environ["TUSSAH_KEY"], max_retries=0, timeout=120)
QUESTION = [{"role": "user", "content": "What is silk made of? Answer in one sentence."}]


def models():
    names = {model.id for model in client.models.list()}
    assert {"chat", "embeddings"} <= names, names
    assert client.models.retrieve("chat").id == "chat"


def chat():
    raw = client.chat.completions.with_raw_response.create(
        model="chat", messages=QUESTION, temperature=0, max_tokens=24, seed=7
    )
    answer = raw.parse()
    receipt = raw.headers["tussah-receipt"]
    assert receipt and answer.model_dump()["tussah"]["job_id"] == receipt, receipt
    (choice,) = answer.choices
    assert choice.message.role == "assistant" and choice.message.content, choice
    assert choice.finish_reason in ("stop", "length"), choice
    usage = answer.usage
    assert usage.prompt_tokens > 5 and 0 < usage.completion_tokens <= 24, usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens, usage
    again = client.chat.completions.create(model="chat", messages=QUESTION, temperature=0, max_tokens=24, seed=7)
    assert again.choices[0].message.content == choice.message.content
    return choice.message.content, usage


def stream(text, usage):
    chunks = list(
        client.chat.completions.create(
            model="chat",
            messages=QUESTION,
            temperature=0,
            max_tokens=24,
            seed=7,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert len(pieces) > 3, pieces
    assert "".join(pieces) == text, (pieces, text)
    ends = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices]
    assert [end for end in ends if end] == ends[-1:], ends
    assert chunks[-1].choices == [] and chunks[-1].usage == usage, chunks[-1]
    assert all(chunk.usage is None for chunk in chunks[:-1])


def options():
    stopped = client.chat.completions.create(
        model="chat", messages=QUESTION, temperature=0, max_tokens=40, stop=[" is"]
    )
    assert " is" not in stopped.choices[0].message.content, stopped
    drawn = [
        client.chat.completions.create(
            model="chat", messages=QUESTION, temperature=1.0, top_p=0.9, max_tokens=12, seed=seed
        )
        .choices[0]
        .message.content
        for seed in (1, 1, 2, 3)
    ]
    assert drawn[0] == drawn[1], drawn
    assert len(set(drawn)) > 1, drawn


def json_schema():
    schema = {
        "type": "object",
        "properties": {
            "material": {"type": "string", "maxLength": 20},
            "natural": {"type": "boolean"},
            "legs": {"type": "integer", "minimum": 0, "maximum": 8},
        },
        "required": ["material", "natural", "legs"],
        "additionalProperties": False,
    }
    answer = client.chat.completions.create(
        model="chat",
        messages=[{"role": "user", "content": "Describe the silkworm as JSON."}],
        temperature=0,
        max_tokens=80,
        response_format={"type": "json_schema", "json_schema": {"name": "silk", "strict": True, "schema": schema}},
    )
    found = json.loads(answer.choices[0].message.content)
    assert set(found) == {"material", "natural", "legs"}, found
    assert isinstance(found["natural"], bool) and 0 <= found["legs"] <= 8 and len(found["material"]) <= 20, found


def embeddings():
    texts = ["Silk is spun by caterpillars.", "Caterpillars spin silk.", "The stock exchange closed early."]
    packed = client.embeddings.create(model="embeddings", input=texts)
    plain = client.embeddings.create(model="embeddings", input=texts, encoding_format="float")
    assert [item.index for item in packed.data] == [0, 1, 2]
    assert packed.usage.prompt_tokens > 10, packed.usage
    vectors = [item.embedding for item in packed.data]
    for vector, same in zip(vectors, plain.data):
        assert len(vector) == 384 and abs(math.hypot(*vector) - 1) < 1e-3
        assert all(abs(a - b) < 1e-6 for a, b in zip(vector, same.embedding))
    near, far = (sum(a * b for a, b in zip(vectors[0], other)) for other in vectors[1:])
    assert near > far + 0.3, (near, far)


def refused(error, code, **request):
    request = {"model": "chat", "messages": QUESTION, "max_tokens": 4, **request}
    try:
        client.chat.completions.create(**request)
    except error as found:
        assert found.code == code, (found.code, found.message)
        return found
    raise AssertionError(f"{request} was answered")


def errors():
    refused(openai.NotFoundError, "model_not_found", model="nobody")
    unsupported = refused(
        openai.BadRequestError,
        "unsupported_parameter",
        tools=[{"type": "function", "function": {"name": "f", "parameters": {}}}],
    )
    assert unsupported.param == "tools" and "tools" in unsupported.message, unsupported
    assert refused(openai.BadRequestError, "unsupported_parameter", n=2).param == "n"
    assert refused(openai.BadRequestError, "invalid_value", temperature=9).param == "temperature"
    refused(openai.BadRequestError, "missing_required_parameter", messages=openai.NOT_GIVEN)
    stranger = OpenAI(base_url=os.environ["TUSSAH_URL"], api_key="tsk_nobody", max_retries=0)
    try:
        stranger.models.list()
    except openai.AuthenticationError as found:
        assert found.code == "invalid_api_key", found.code
    else:
        raise AssertionError("a key that nobody has was taken")


def timeout():
    begun = time.monotonic()
    try:
        client.with_options(timeout=0.5).chat.completions.create(
            model="chat", messages=[{"role": "user", "content": "Tell me a very long story."}], max_tokens=1000
        )
    except openai.APITimeoutError:
        pass
    else:
        raise AssertionError("a thousand tokens came in half a second")
    assert time.monotonic() - begun < 60
    # A client that leaves in the middle of a stream frees its place, too.
    with client.chat.completions.create(
        model="chat", messages=QUESTION, max_tokens=1000, stream=True
    ) as unfinished:
        next(iter(unfinished))
    answer = client.chat.completions.create(model="chat", messages=QUESTION, max_tokens=2)
    assert answer.usage.completion_tokens <= 2


models()
stream(*chat())
options()
json_schema()
embeddings()
errors()
timeout()
print("openai for Python", openai.__version__, "is at home here")
