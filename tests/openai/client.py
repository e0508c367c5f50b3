"""What a user of the openai package for Python does with a provider, against one that was started.

In: TUSSAH_URL (its /v1), TUSSAH_KEY, the models `chat`, `completions` and `embeddings` deployed. Out: exit code 0, or the first
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
    assert {"chat", "completions", "embeddings"} <= names, names
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


def logprobs(text):
    asked = dict(model="chat", messages=QUESTION, temperature=0, max_tokens=24, seed=7, logprobs=True, top_logprobs=3)
    (choice,) = client.chat.completions.create(**asked).choices
    tokens = choice.logprobs.content
    # What is asked for besides changes no answer.
    assert choice.message.content == text == "".join(token.token for token in tokens), (text, choice)
    for token in tokens:
        assert bytes(token.bytes).decode() == token.token, token
        assert len(token.top_logprobs) <= 3 and token.logprob <= 0, token
        # The likeliest was taken; the others are less likely, in their order.
        assert token.top_logprobs[0].token == token.token, token
        assert token.top_logprobs[0].logprob == token.logprob, token
        rest = [other.logprob for other in token.top_logprobs]
        assert rest == sorted(rest, reverse=True) and sum(map(math.exp, rest)) < 1 + 1e-5, token
    streamed = []
    for chunk in client.chat.completions.create(**asked, stream=True):
        if chunk.choices and chunk.choices[0].logprobs:
            streamed += chunk.choices[0].logprobs.content
    assert streamed == tokens, (streamed, tokens)
    begun = client.completions.create(model="completions", prompt="Silk is", temperature=0, max_tokens=5, logprobs=2)
    (choice,) = begun.choices
    found = choice.logprobs
    assert "".join(found.tokens) == choice.text and len(found.tokens) == begun.usage.completion_tokens, begun
    assert all(choice.text[at:].startswith(token) for at, token in zip(found.text_offset, found.tokens)), found
    for token, logprob, top in zip(found.tokens, found.token_logprobs, found.top_logprobs):
        assert top[token] == logprob == max(top.values()), found


WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"city": {"enum": ["Oslo", "Rome"]}, "days": {"type": "integer", "minimum": 1, "maximum": 7}},
            "required": ["city", "days"],
            "additionalProperties": False,
        },
    },
}
TIME = {"type": "function", "function": {"name": "time", "description": "What time it is"}}


def tools():
    asked = dict(model="chat", temperature=0, max_tokens=120, tools=[WEATHER, TIME])
    question = [{"role": "user", "content": "What is the weather in Rome for the next 3 days?"}]
    named = {"type": "function", "function": {"name": "weather"}}
    answer = client.chat.completions.create(**asked, messages=question, tool_choice=named)
    (choice,) = answer.choices
    assert choice.finish_reason == "tool_calls" and choice.message.content is None, choice
    (call,) = choice.message.tool_calls
    assert call.type == "function" and call.function.name == "weather" and call.id, call
    arguments = json.loads(call.function.arguments)
    assert arguments["city"] in ("Oslo", "Rome") and 1 <= arguments["days"] <= 7 and len(arguments) == 2, arguments
    # In a stream the package puts the call together by itself.
    with client.chat.completions.stream(**asked, messages=question, tool_choice=named) as stream:
        (same,) = stream.get_final_completion().choices[0].message.tool_calls
    assert (same.function.name, same.function.arguments) == (call.function.name, call.function.arguments), same
    either = client.chat.completions.create(**asked, messages=question, tool_choice="required")
    (one,) = either.choices[0].message.tool_calls
    assert one.function.name in ("weather", "time"), one
    # What the function gave goes back, as the package has it.
    turns = [*question, choice.message, {"role": "tool", "tool_call_id": call.id, "content": "Sunny, 25 degrees."}]
    told = client.chat.completions.create(**{**asked, "max_tokens": 30}, messages=turns)
    assert told.choices[0].message.content or told.choices[0].message.tool_calls, told
    quiet = client.chat.completions.create(**asked, messages=question, tool_choice="none")
    assert quiet.choices[0].message.content and not quiet.choices[0].message.tool_calls, quiet


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
    unsupported = refused(openai.BadRequestError, "unsupported_parameter", tools=[{"type": "custom", "custom": {"name": "f"}}])
    assert unsupported.param == "tools[0].type", unsupported
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
        client.with_options(timeout=0.01).chat.completions.create(
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
text, usage = chat()
stream(text, usage)
options()
logprobs(text)
tools()
json_schema()
embeddings()
errors()
timeout()
print("openai for Python", openai.__version__, "is at home here")
