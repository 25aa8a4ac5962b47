"""What the readers that people use find in a folder of logs: TensorBoard's, pandas, the records of Weights & Biases. As JSON."""
import glob, json, math, struct, sys, zlib
import pandas
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2
from wandb.proto import wandb_internal_pb2

BLOCK = 32768


def tensorboard(folder):
    events = EventAccumulator(folder, size_guidance={"scalars": 0, "images": 0})
    events.Reload()
    tags = events.Tags()
    plugin = {tag: plugin_data_pb2.HParamsPluginData.FromString(content) for tag, content in events.PluginTagToContent("hparams").items()}
    start = plugin["_hparams_/session_start_info"].session_start_info
    values = {name: getattr(value, value.WhichOneof("kind")) for name, value in start.hparams.items()}
    return {
        "scalars": {tag: [[e.step, e.value] for e in events.Scalars(tag)] for tag in tags["scalars"]},
        "images": {tag: [[e.step, e.width, e.height, e.encoded_image_string[:8].hex(), zlib.crc32(e.encoded_image_string)] for e in events.Images(tag)] for tag in tags["images"]},
        "hparams": values,
        "status": plugin["_hparams_/session_end_info"].session_end_info.status if "_hparams_/session_end_info" in plugin else None,
    }


def table(folder):
    rows = pandas.read_csv(f"{folder}/metrics.csv").to_dict("records")
    return [{k: v for k, v in row.items() if not math.isnan(v)} for row in rows]


def records(path):
    data = open(path, "rb").read()
    assert data[:7] == b":W&B\xe1\xbe\x00"
    at, record = 7, b""
    while at < len(data):
        left = BLOCK - at % BLOCK
        if left < 7:
            at += left
            continue
        crc, length, kind = struct.unpack("<IHB", data[at : at + 7])
        chunk = data[at + 7 : at + 7 + length]
        assert zlib.crc32(bytes([kind]) + chunk) == crc, at
        record += chunk
        at += 7 + length
        if kind in (1, 4):
            yield wandb_internal_pb2.Record.FromString(record)
            record = b""


def wandb(folder):
    runs = []
    for path in sorted(glob.glob(f"{folder}/wandb/offline-run-*/run-*.wandb")):
        run = {"kinds": [], "history": []}
        for record in records(path):
            run["kinds"].append(record.WhichOneof("record_type"))
            if record.HasField("run"):
                run["run_id"], run["project"], run["slot"] = record.run.run_id, record.run.project, record.control.mailbox_slot
                run["config"] = {item.key: json.loads(item.value_json) for item in record.run.config.update}
            if record.HasField("history"):
                run["history"].append({item.nested_key[0]: json.loads(item.value_json) for item in record.history.item})
            if record.HasField("exit"):
                run["exit"] = record.exit.exit_code
        runs.append(run)
    return runs


folder = sys.argv[1]
print(json.dumps({"tensorboard": tensorboard(folder), "table": table(folder), "wandb": wandb(folder)}))
