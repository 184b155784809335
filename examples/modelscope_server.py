"""ModelScope's own server, reading with this package: does what `modelscope server` does, which imports no plugin.

python modelscope_server.py --model work_dir/output     # a directory or an id; without it the embedded model
curl -H 'Content-Type: application/json' http://127.0.0.1:8000/call \
    -d "{\"input\": {\"image\": \"$(base64 -w0 line.png)\"}}"

It opens every path and URL that a client sends instead of base64, so only admit clients that you trust.
"""

import argparse

import uvicorn
from fastapi import FastAPI
from modelscope.pipelines import pipeline
from modelscope.server.api.routers.router import api_router
from modelscope.utils.constant import Tasks
from modelscope.utils.input_output import get_task_input_examples, get_task_schemas

import ms_ocr_handwritten

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--model", default=ms_ocr_handwritten.default_model_dir(), help="a directory or an id")
parser.add_argument("--revision", help="of an id")
parser.add_argument("--host", default="127.0.0.1")
parser.add_argument("--port", type=int, default=8000)
arguments = parser.parse_args()

app = FastAPI(title="modelscope_server")
app.include_router(api_router)
app.state.pipeline = pipeline(Tasks.ocr_recognition, model=arguments.model, model_revision=arguments.revision)
app.state.pipeline_info = {
    "task_name": Tasks.ocr_recognition,
    "schema": get_task_schemas(Tasks.ocr_recognition),
}
app.state.pipeline_sample = get_task_input_examples(Tasks.ocr_recognition)
uvicorn.run(app, host=arguments.host, port=arguments.port)
