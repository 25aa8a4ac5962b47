"""A stand-in for the service of Weights & Biases on 127.0.0.1: takes runs, rows, files and artifacts from the real client.

    server.py FOLDER [refuse]

Prints its port. What it takes lies in FOLDER: `requests.jsonl`, one line for each call; `files/NAME` for what is uploaded. An
artifact that was committed can be downloaded again. With `refuse`, every call is answered with an error.
"""
import gzip, http.server, json, os, re, sys, threading, urllib.parse

folder, refuse = sys.argv[1], "refuse" in sys.argv[2:]
os.makedirs(f"{folder}/files", exist_ok=True)
log, lock = open(f"{folder}/requests.jsonl", "a", buffering=1), threading.Lock()
artifacts = {}  # id -> what createArtifact was told
ENTITY = {"id": "RW50aXR5", "name": "team"}


def path_of(name):
    return f"{folder}/files/{urllib.parse.quote(name, safe='')}"


def manifest_of(artifact):
    return json.load(open(path_of(f"manifest-{artifact}")))


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def body(self):
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(data) if self.headers.get("Content-Encoding") == "gzip" else data

    def record(self, **what):
        with lock:
            log.write(json.dumps(what) + "\n")

    def send(self, data, status=200, kind="application/json"):
        data = data if isinstance(data, bytes) else json.dumps(data).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def url(self, name):
        return f"http://{self.headers['Host']}/file/{urllib.parse.quote(name, safe='')}"

    def do_GET(self):
        self.record(get=self.path)
        if refuse:
            return self.send({"errors": [{"message": "refused"}]}, 403)
        name = urllib.parse.unquote(self.path.removeprefix("/file/"))
        if not self.path.startswith("/file/") or not os.path.exists(path_of(name)):
            # Files of artifacts are asked for by entity and digest (hexadecimal).
            match = re.match(r"/artifactsV2/[^/]+/[^/]+/(?:[^/]+/)?([0-9a-f]{32})", self.path)
            name = match and next((n for n in os.listdir(f"{folder}/files") if match.group(1) in n), None)
            if not name:
                return self.send({}, 404)
            name = urllib.parse.unquote(name)
        self.send(open(path_of(name), "rb").read(), kind="application/octet-stream")

    def do_PUT(self):
        data = self.body()
        name = urllib.parse.unquote(self.path.removeprefix("/file/"))
        self.record(put=name, size=len(data))
        if refuse:
            return self.send({}, 403)
        with open(path_of(name), "wb") as file:
            file.write(data)
        self.send({})

    def do_POST(self):
        body = json.loads(self.body() or b"{}")
        self.record(post=self.path, body=body)
        if refuse:
            return self.send({"errors": [{"message": "permission denied"}]}, 403)
        if self.path != "/graphql":
            return self.send({})
        query, variables = body.get("query", ""), body.get("variables") or {}
        data = self.answer(query, variables)
        self.send({"data": data})

    def membership(self, name):
        """The newest version of an artifact that has the alias, as NAME:ALIAS asks for it."""
        collection, alias = name.split(":")
        known = [(number, a) for number, a in enumerate(artifacts.values()) if a["input"]["artifactCollectionName"] == collection]
        found = [(n, a) for n, a in known if alias in [x["alias"] for x in a["input"]["aliases"]] + [f"v{n}"]]
        if not found:
            return None
        number, artifact = found[-1]
        project = {"id": "p", "internalId": "p", "name": artifact["input"]["projectName"], "entity": {"name": "team"}}
        place = {"__typename": "ArtifactSequence", "name": collection, "project": project}
        about = {"__typename": "Artifact", "id": f"a{number}", "artifactSequence": place, "versionIndex": number, "artifactType": {"name": "model"},
                 "description": None, "metadata": artifact["input"]["metadata"], "ttlDurationSeconds": -2, "ttlIsInherited": False, "tags": [],
                 "historyStep": None, "state": "COMMITTED", "size": 1, "digest": artifact["input"]["digest"], "commitHash": "c", "fileCount": 1,
                 "createdAt": "2026-01-01T00:00:00Z", "updatedAt": None, "aliases": []}
        return {"__typename": "ArtifactCollectionMembership", "id": "m", "versionIndex": number, "createdAt": "2026-01-01T00:00:00Z",
                "aliases": [], "artifactCollection": place, "artifact": about}

    def answer(self, query, v):
        if re.search(r"__(type|schema)\b", query):
            fields = {"fields": [], "inputFields": [], "enumValues": []}
            return {name: fields for name in re.findall(r"(\w+):\s*__type", query)} or {"__type": fields}
        if "upsertBucket" in query:
            project = {"id": "p", "name": v.get("project") or "uncategorized", "entity": ENTITY}
            bucket = {"id": "r", "name": v.get("name"), "displayName": v.get("displayName") or v.get("name"), "description": "", "config": "{}",
                      "sweepName": None, "historyLineCount": 0, "project": project}
            return {"upsertBucket": {"bucket": bucket, "inserted": True}}
        if "createRunFiles" in query:
            files = [{"name": name, "uploadUrl": self.url(name)} for name in v.get("files", [])]
            return {"createRunFiles": {"runID": "r", "uploadHeaders": [], "files": files}}
        if "createArtifactManifest" in query:
            artifact = v["artifactID"]
            upload = {"id": "f", "name": v["name"], "displayName": v["name"], "uploadUrl": self.url(f"manifest-{artifact}"), "uploadHeaders": []}
            return {"createArtifactManifest": {"artifactManifest": {"id": f"m-{artifact}", "file": upload}}}
        if "updateArtifactManifest" in query:
            artifact = v["artifactManifestID"].removeprefix("m-")
            upload = {"id": "f", "name": "m", "displayName": "m", "uploadUrl": self.url(f"manifest-{artifact}"), "uploadHeaders": []}
            return {"updateArtifactManifest": {"artifactManifest": {"id": v["artifactManifestID"], "file": upload}}}
        if "createArtifactFiles" in query:
            edges = [{"node": {"id": f["name"], "name": f["name"], "displayName": f["name"], "uploadUrl": self.url(f"{f['artifactID']}-{f['name']}"),
                               "uploadHeaders": [], "uploadMultipartUrls": None, "storagePath": f"x/{f['name']}", "artifact": {"id": f["artifactID"]}}}
                     for f in v["artifactFiles"]] if "artifactFiles" in v else \
                    [{"node": {"id": f["name"], "name": f["name"], "displayName": f["name"], "uploadUrl": self.url(f"{f['artifactID']}-{f['name']}"),
                               "uploadHeaders": [], "uploadMultipartUrls": None, "storagePath": f"x/{f['name']}", "artifact": {"id": f["artifactID"]}}}
                     for f in v["input"]["artifactFiles"]]
            return {"createArtifactFiles": {"files": {"edges": edges}}}
        if "createArtifact(" in query:
            name = f"a{len(artifacts)}"
            artifacts[name] = v
            return {"createArtifact": {"artifact": {"id": name, "state": "PENDING", "artifactSequence": {"id": "s", "latestArtifact": None}}}}
        if "commitArtifact" in query:
            return {"commitArtifact": {"artifact": {"id": v["artifactID"], "digest": "d"}}}
        if "artifactCollectionMembership" in query:
            return {"project": {"artifactCollectionMembership": self.membership(v["name"])}}
        if "FetchArtifactManifest" in query or "ArtifactManifest(" in query:
            return {"artifact": {"currentManifest": {"__typename": "ArtifactManifest", "file": {"directUrl": self.url(f"manifest-{v['id']}")}}}}
        if "artifactMembership(" in query:
            artifact = "a" + v["alias"].removeprefix("v")
            node = {"__typename": "File", "name": "model.ckpt", "directUrl": self.url(f"{artifact}-model.ckpt")}
            files = {"pageInfo": {"__typename": "PageInfo", "endCursor": None, "hasNextPage": False}, "edges": [{"node": node}]}
            return {"project": {"artifactCollection": {"__typename": "ArtifactSequence", "artifactMembership": {"files": files}}}}
        viewer = {"id": "u", "entity": "team", "username": "u", "email": "", "flags": "{}", "admin": False, "teams": {"edges": []}}
        info = {"cliVersionInfo": {"max_cli_version": "0.99.0"}, "latestLocalVersionInfo": None, "features": []}
        return {"viewer": viewer, "serverInfo": info, "model": None, "project": None, "entity": None}


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
server.handle_error = lambda *_: None  # the client closes connections as it likes
print(server.server_address[1], flush=True)
server.serve_forever()
