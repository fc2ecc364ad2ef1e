// @grpc/grpc-js at either end of a tunnel, and as a tunnel client of its own (the proto, no generated code). Speaks JSON
// lines on standard output.
//
//     grpc_peer.js serve [CERT KEY]                    prints {port}
//     grpc_peer.js call ADDRESS AUTHORITY [CA]         calls the service, prints what came of it
//     grpc_peer.js open PROTO TOKEN ADDRESS,ADDRESS AUTHORITY [CA]   is a tunnel client at each, prints what it heard
'use strict';

const fs = require('fs');
const grpc = require('@grpc/grpc-js');

const NAME = '/kavilo.test.Peer/';
const same = (bytes) => bytes;
const say = (value) => process.stdout.write(JSON.stringify(value) + '\n');

function definition(name, requestStream, responseStream) {
    return {path: NAME + name, requestStream, responseStream, requestSerialize: same, requestDeserialize: same,
            responseSerialize: same, responseDeserialize: same};
}

function serve(cert, key) {
    const server = new grpc.Server({'grpc.max_receive_message_length': -1, 'grpc.max_send_message_length': -1});
    server.addService({Echo: definition('Echo', false, false), Chat: definition('Chat', true, true),
                       Fail: definition('Fail', false, false), Hang: definition('Hang', false, false)}, {
        Echo(call, done) {
            call.sendMetadata(call.metadata);
            done(null, call.request, call.metadata);
        },
        Chat(call) {
            call.on('data', (message) => call.write(Buffer.from(message.toString().toUpperCase())));
            call.on('end', () => call.end());
        },
        Fail(call, done) {
            done({code: grpc.status.NOT_FOUND, details: call.request.toString()});
        },
        Hang(call) {
            call.on('cancelled', () => say({cancelled: true}));
            say({hanging: true});
        },
    });
    const credentials = cert ? grpc.ServerCredentials.createSsl(null, [{cert_chain: fs.readFileSync(cert),
                                                                        private_key: fs.readFileSync(key)}])
                             : grpc.ServerCredentials.createInsecure();
    server.bindAsync('127.0.0.1:0', credentials, (error, port) => say({port}));
}

function options(authority) {
    return {'grpc.use_local_subchannel_pool': 1, 'grpc.default_authority': authority, 'grpc.ssl_target_name_override': authority, 'grpc.enable_retries': 0,
            'grpc.max_receive_message_length': -1};
}

function credentialsOf(ca) {
    return ca ? grpc.credentials.createSsl(fs.readFileSync(ca)) : grpc.credentials.createInsecure();
}

async function call(address, authority, ca) {
    const client = new grpc.Client(address, credentialsOf(ca), options(authority));
    const result = {};
    const unary = (name, message, metadata = new grpc.Metadata(), how = {}) => new Promise((resolve) => {
        let trailers = {};
        const made = client.makeUnaryRequest(NAME + name, same, same, message, metadata,
            {deadline: Date.now() + 20000, ...how},
            (error, value) => resolve({code: error ? error.code : 0, details: error ? error.details : '', value, trailers}));
        made.on('status', (status) => { trailers = status.metadata; });
        made.on('metadata', (first) => { if (how.first) how.first(first); });
        if (how.made) how.made(made);
    });

    let first;
    const metadata = new grpc.Metadata();
    metadata.set('x-ascii', 'plain');
    metadata.set('x-some-bin', Buffer.from([0, 1, 254, 255]));
    const echo = await unary('Echo', Buffer.from('hello'), metadata, {first: (m) => { first = m; }});
    result.echo = [echo.value.toString(), first.get('x-ascii'), first.get('x-some-bin').map((b) => b.toString('hex'))];

    const failed = await unary('Fail', Buffer.from('NOT_FOUND nothing hére'));
    result.fail = [failed.code, failed.details];

    const large = Buffer.alloc(8 << 20, 'kavilo');
    result.large = large.equals((await unary('Echo', large)).value);

    const many = await Promise.all([...Array(200).keys()].map((i) => unary('Echo', Buffer.from(String(i)))));
    result.many = many.filter((each, i) => each.value && each.value.toString() === String(i)).length;

    result.deadline = (await unary('Hang', Buffer.from('x'), undefined, {deadline: Date.now() + 200})).code;
    result.cancel = (await unary('Hang', Buffer.from('x'), undefined,
        {made: (made) => setTimeout(() => made.cancel(), 50)})).code;

    result.chat = await new Promise((resolve) => {
        const got = [];
        const chat = client.makeBidiStreamRequest(NAME + 'Chat', same, same, new grpc.Metadata(),
            {deadline: Date.now() + 20000});
        chat.on('data', (message) => {
            got.push(message.toString());
            if (got.length < 3)
                chat.write(Buffer.from('abc'[got.length]));
            else
                chat.end();
        });
        chat.on('error', (error) => got.push(String(error)));
        chat.on('status', (status) => resolve([...got, status.code]));
        chat.write(Buffer.from('a'));
    });
    client.close();
    say(result);
}

// One Open: Hello, Welcome, Ping, Pong, and an answer; then cancelled. Says what it heard and how it ended.
function openOne(service, address, authority, ca, path, token) {
    const client = new grpc.Client(address, credentialsOf(ca), options(authority));
    const stream = client.makeBidiStreamRequest(path, service.requestSerialize, service.responseDeserialize,
        new grpc.Metadata(), {deadline: Date.now() + 20000});
    stream.on('data', (frame) => {
        if (frame.kind === 'welcome') {
            stream.write({ping: {nonce: 42}});
            say({url: frame.welcome.public_url, address});
        } else if (frame.kind === 'ping') {
            stream.write({pong: {nonce: frame.ping.nonce}});
        } else if (frame.kind === 'pong') {
            say({pong: frame.pong.nonce, address});
        } else if (frame.kind === 'request_head') {
            const id = frame.request_id;
            const body = Buffer.from(frame.request_head.path);
            stream.write({request_id: id, response_head: {status: 200, headers: [
                {name: 'content-length', value: Buffer.from(String(body.length))}]}});
            stream.write({request_id: id, data: {data: body}});
            stream.write({request_id: id, data: {end_stream: true}});
        }
    });
    stream.on('error', () => {});
    stream.on('status', (status) => {
        say({code: status.code, details: status.details, address, path, token});
        client.close();
    });
    stream.write({hello: {token, client_version: 'js'}});
}

// A tunnel client at each of the addresses; and with a wrong token, and with a wrong path.
function open(proto, token, addresses, authority, ca) {
    const loaded = require('@grpc/proto-loader').loadSync(proto, {keepCase: true, longs: String, oneofs: true});
    const service = loaded['kavilo.tunnel.v1.Tunnel'].Open;
    for (const address of addresses.split(',')) {
        openOne(service, address, authority, ca, service.path, token);
        openOne(service, address, authority, ca, service.path, 'wrong');
        openOne(service, address, authority, ca, service.path + 's', token);
    }
}

const [mode, ...rest] = process.argv.slice(2);
({serve, call, open})[mode](...rest);
