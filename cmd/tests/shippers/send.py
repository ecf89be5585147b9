"""Sends the texts of a JSON file with a client that others wrote: send.py CLIENT ADDRESS SERVICE FILE."""

import json
import logging
import sys
import time


def elasticsearch(address, service, texts):
    from elasticsearch import Elasticsearch, helpers

    client = Elasticsearch(address)
    assert client.info()["version"]["number"].startswith("8."), client.info()
    assert client.cluster.health()["status"] == "green"
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    document = lambda text: {"@timestamp": now, "message": text, "service": {"name": service}, "n": 1}
    actions = [{"_op_type": "create", "_index": "texts", **document(text)} for text in texts]
    assert helpers.bulk(client, actions) == (len(texts), [])
    # What is not possible is refused alone.
    mixed = [{"_op_type": "delete", "_index": "texts", "_id": "1"}, {"_index": "texts", **document("beside a refusal")}]
    kept, errors = helpers.bulk(client, mixed, raise_on_error=False)
    assert kept == 1 and errors[0]["delete"]["status"] == 400, errors


def opentelemetry(exporter, service, texts):
    from opentelemetry._logs import LogRecord, SeverityNumber
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
    from opentelemetry.sdk.resources import Resource

    attributes = {"service.name": service, "k8s.namespace.name": "shop", "k8s.pod.name": "cart-0"}
    provider = LoggerProvider(resource=Resource(attributes))
    provider.add_log_record_processor(BatchLogRecordProcessor(exporter))
    logger = provider.get_logger("texts")
    for text in texts:
        logger.emit(
            LogRecord(
                timestamp=time.time_ns(),
                severity_number=SeverityNumber.WARN,
                severity_text="WARN",
                body=text,
                attributes={"n": 1, "list": ["a", "b"]},
            )
        )
    assert provider.force_flush()
    provider.shutdown()


def otlp_http(address, service, texts):
    from opentelemetry.exporter.otlp.proto.http import Compression
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter

    opentelemetry(OTLPLogExporter(endpoint=address + "/v1/logs", compression=Compression.Gzip), service, texts)


def otlp_grpc(address, service, texts):
    import grpc
    from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter

    exporter = OTLPLogExporter(endpoint=address, insecure=True, compression=grpc.Compression.Gzip)
    opentelemetry(exporter, service, texts)


def loki(address, service, texts):
    import logging_loki

    handler = logging_loki.LokiHandler(url=address + "/loki/api/v1/push", tags={"app": service}, version="1")
    handler.handleError = lambda record: sys.exit("a line was refused")
    for text in texts:
        # As a message without arguments, in which nothing is replaced.
        handler.emit(logging.LogRecord("texts", logging.WARNING, __file__, 1, text, None, None))


if __name__ == "__main__":
    clients = {one.__name__: one for one in (elasticsearch, otlp_http, otlp_grpc, loki)}
    with open(sys.argv[4], encoding="utf-8") as file:
        clients[sys.argv[1]](sys.argv[2], sys.argv[3], json.load(file))
