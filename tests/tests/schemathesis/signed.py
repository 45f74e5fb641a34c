"""Signs the requests that schemathesis makes, with the API key in STEELYARD_API_KEY."""

import os
import time
import uuid

import schemathesis

CONSUMER, TOKEN, SECRET = os.environ["STEELYARD_API_KEY"].split(":")


@schemathesis.auth()
class Signed:
    def get(self, case, context):
        return uuid.uuid4().hex

    def set(self, case, nonce, context):
        fields = {
            "oauth_version": "1.0",
            "oauth_signature_method": "PLAINTEXT",
            "oauth_consumer_key": CONSUMER,
            "oauth_token": TOKEN,
            "oauth_signature": f"%26{SECRET}",
            "oauth_nonce": uuid.uuid4().hex,
            "oauth_timestamp": str(int(time.time())),
        }
        case.headers = case.headers or {}
        case.headers["Authorization"] = "OAuth " + ", ".join(f'{name}="{value}"' for name, value in fields.items())
