// A private sigstore in one process: the sigstore project's own mock of its certificate authority and its log, over
// HTTP as the real ones speak, with an issuer of identities. Prints its trust configuration; ends with its input.
const { createHash, generateKeyPairSync } = require("crypto");
const { createServer } = require("http");
const { fulcioHandler, initializeCA, initializeCTLog, initializeTLog, rekorHandler } = require("@sigstore/mock");

const SINCE = { start: "2020-01-01T00:00:00Z" };
const pair = () => generateKeyPairSync("ec", { namedCurve: "prime256v1" });
const sha256 = (bytes) => createHash("sha256").update(bytes).digest();

// The mock wants as JSON what the real authority takes as a header, and as base64.
function asked(request, body) {
  const oidcIdentityToken = request.headers.authorization.replace("Bearer ", "");
  const certificateSigningRequest = Buffer.from(JSON.parse(body).certificateSigningRequest, "base64").toString();
  return JSON.stringify({ credentials: { oidcIdentityToken }, certificateSigningRequest });
}

// The mock logs what it is sent; the real log keeps digests of a signed envelope, and who signed it.
function kept(body) {
  const entry = JSON.parse(body);
  const { envelope, verifiers } = entry.spec.proposedContent;
  const { payload, signatures } = JSON.parse(envelope);
  const digest = (bytes) => ({ algorithm: "sha256", value: sha256(bytes).toString("hex") });
  const spec = {
    envelopeHash: digest(envelope),
    payloadHash: digest(Buffer.from(payload, "base64")),
    signatures: signatures.map(({ sig }, at) => ({ signature: sig, verifier: verifiers[at] })),
  };
  return JSON.stringify({ ...entry, spec });
}

function log(url, key) {
  return {
    baseUrl: url,
    hashAlgorithm: "SHA2_256",
    logId: { keyId: sha256(key).toString("base64") },
    publicKey: { rawBytes: key.toString("base64"), keyDetails: "PKIX_ECDSA_P256_SHA_256", validFor: SINCE },
  };
}

function trust(url, ca, ctlog, tlog) {
  const service = [{ url, majorApiVersion: 1, validFor: SINCE, operator: "trial" }];
  const certificates = [{ rawBytes: Buffer.from(ca.rootCertificate).toString("base64") }];
  const subject = { organization: "trial", commonName: "trial" };
  return {
    mediaType: "application/vnd.dev.sigstore.clienttrustconfig.v0.1+json",
    trustedRoot: {
      mediaType: "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
      tlogs: [log(url, tlog.publicKey)],
      ctlogs: [log(url, ctlog.publicKey)],
      certificateAuthorities: [{ subject, uri: url, validFor: SINCE, certChain: { certificates } }],
    },
    signingConfig: {
      mediaType: "application/vnd.dev.sigstore.signingconfig.v0.2+json",
      caUrls: service,
      oidcUrls: service,
      rekorTlogUrls: service,
      rekorTlogConfig: { selector: "ANY" },
      tsaConfig: { selector: "ANY" },
    },
  };
}

async function main() {
  const server = createServer();
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  const url = `http://127.0.0.1:${server.address().port}`;
  const ctlog = await initializeCTLog(pair());
  const ca = await initializeCA(pair(), ctlog);
  const tlog = await initializeTLog(url, pair());
  const [fulcio, rekor] = [fulcioHandler(ca), rekorHandler(tlog)];
  const issuer = JSON.stringify({ issuer: url, authorization_endpoint: url, token_endpoint: url });
  const answers = {
    "/.well-known/openid-configuration": async () => ({ statusCode: 200, response: issuer }),
    [fulcio.path]: (request, body) => fulcio.fn(asked(request, body)),
    [rekor.path]: (_, body) => rekor.fn(kept(body)),
  };
  server.on("request", async (request, response) => {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    const answer = answers[request.url.replace(/\/$/, "")] ?? (async () => ({ statusCode: 404, response: "" }));
    const { statusCode, response: body } = await answer(request, Buffer.concat(chunks).toString());
    response.writeHead(statusCode, { "content-type": "application/json" }).end(body);
  });
  console.log(JSON.stringify(trust(url, ca, ctlog, tlog)));
  process.stdin.on("end", () => process.exit()).resume();
}

main();
