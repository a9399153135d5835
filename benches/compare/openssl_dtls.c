/*
 * The CPU of OpenSSL's side of DTLS handshakes, as server, the way WebRTC uses it: DTLS 1.2, no
 * cookie (an ICE check has proved the address), use_srtp, a certificate asked of the client and
 * believed by its fingerprint, keys exported. Client and server are in one thread and talk through
 * memory; only the server's steps are counted. `compare handshake` compiles and runs it.
 *
 *   openssl_dtls COUNT GROUP      prints: nanoseconds per handshake, cipher suite, group
 */
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define PROFILES "SRTP_AEAD_AES_256_GCM:SRTP_AEAD_AES_128_GCM:SRTP_AES128_CM_SHA1_80"
#define SUITE "ECDHE-ECDSA-AES128-GCM-SHA256"
/* Two keys and two salts of AES-256-GCM (RFC 7714). */
#define MATERIAL_BYTES (2 * (32 + 12))
/* As the relay's limit dtls.datagram_bytes. */
#define DATAGRAM_BYTES 1200
/* A handshake has three steps of each side. */
#define STEPS_MAX 20

struct identity {
    EVP_PKEY *key;
    X509 *certificate;
    unsigned char fingerprint[EVP_MAX_MD_SIZE];
    unsigned int fingerprint_bytes;
};

static struct identity client_identity, server_identity;

static void fail(const char *what) {
    fprintf(stderr, "%s\n", what);
    ERR_print_errors_fp(stderr);
    exit(1);
}

static long long thread_ns(void) {
    struct timespec time;
    if (clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time) != 0) fail("no clock");
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static void make(struct identity *it) {
    it->key = EVP_EC_gen("P-256");
    it->certificate = X509_new();
    if (it->key == NULL || it->certificate == NULL) fail("no key");
    X509_NAME *name = X509_get_subject_name(it->certificate);
    const unsigned char *text = (const unsigned char *)"compare";
    if (!X509_set_version(it->certificate, X509_VERSION_3) ||
        !ASN1_INTEGER_set(X509_get_serialNumber(it->certificate), 1) ||
        !X509_gmtime_adj(X509_getm_notBefore(it->certificate), -86400) ||
        !X509_gmtime_adj(X509_getm_notAfter(it->certificate), 30 * 86400) ||
        !X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, text, -1, -1, 0) ||
        !X509_set_issuer_name(it->certificate, name) ||
        !X509_set_pubkey(it->certificate, it->key) ||
        !X509_sign(it->certificate, it->key, EVP_sha256()) ||
        !X509_digest(it->certificate, EVP_sha256(), it->fingerprint, &it->fingerprint_bytes))
        fail("no certificate");
}

/* A peer is who its fingerprint says, whatever else its certificate says. */
static int is_of(const struct identity *expected, X509_STORE_CTX *store) {
    unsigned char found[EVP_MAX_MD_SIZE];
    unsigned int bytes = 0;
    X509 *leaf = X509_STORE_CTX_get0_cert(store);
    return leaf != NULL && X509_digest(leaf, EVP_sha256(), found, &bytes) &&
           bytes == expected->fingerprint_bytes &&
           CRYPTO_memcmp(found, expected->fingerprint, bytes) == 0;
}

static int is_client(X509_STORE_CTX *store, void *unused) {
    (void)unused;
    return is_of(&client_identity, store);
}

static int is_server(X509_STORE_CTX *store, void *unused) {
    (void)unused;
    return is_of(&server_identity, store);
}

static SSL_CTX *context(const SSL_METHOD *method, const struct identity *own,
                        int (*verify)(X509_STORE_CTX *, void *), const char *group) {
    SSL_CTX *it = SSL_CTX_new(method);
    if (it == NULL || !SSL_CTX_set_min_proto_version(it, DTLS1_2_VERSION) ||
        !SSL_CTX_set_max_proto_version(it, DTLS1_2_VERSION) ||
        !SSL_CTX_set_cipher_list(it, SUITE) || !SSL_CTX_set1_groups_list(it, group) ||
        !SSL_CTX_use_certificate(it, own->certificate) ||
        !SSL_CTX_use_PrivateKey(it, own->key) ||
        SSL_CTX_set_tlsext_use_srtp(it, PROFILES) != 0)
        fail("no context");
    SSL_CTX_set_options(it, SSL_OP_NO_TICKET | SSL_OP_NO_QUERY_MTU);
    SSL_CTX_set_session_cache_mode(it, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_verify(it, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    SSL_CTX_set_cert_verify_callback(it, verify, NULL);
    return it;
}

static BIO *pipe_of_memory(void) {
    BIO *it = BIO_new(BIO_s_mem());
    if (it == NULL) fail("no memory");
    BIO_set_mem_eof_return(it, -1);
    return it;
}

static SSL *open_end(SSL_CTX *context, BIO *in, BIO *out) {
    SSL *it = SSL_new(context);
    if (it == NULL || !BIO_up_ref(in) || !BIO_up_ref(out)) fail("no connection");
    SSL_set_bio(it, in, out);
    SSL_set_mtu(it, DATAGRAM_BYTES);
    return it;
}

/* Whether the handshake is complete. */
static int step(SSL *it) {
    int result = SSL_do_handshake(it);
    if (result != 1 && SSL_get_error(it, result) != SSL_ERROR_WANT_READ) fail("no handshake");
    return result == 1;
}

static void export_keys(SSL *it, unsigned char *material) {
    static const char label[] = "EXTRACTOR-dtls_srtp";
    if (SSL_get_selected_srtp_profile(it) == NULL ||
        !SSL_export_keying_material(it, material, MATERIAL_BYTES, label, strlen(label), NULL, 0, 0))
        fail("no keys");
}

/* One handshake; the server's nanoseconds. */
static long long shake(SSL_CTX *for_client, SSL_CTX *for_server, int is_told) {
    unsigned char client_keys[MATERIAL_BYTES], server_keys[MATERIAL_BYTES];
    BIO *to_server = pipe_of_memory(), *to_client = pipe_of_memory();
    SSL *client = open_end(for_client, to_client, to_server);
    SSL_set_connect_state(client);
    long long began = thread_ns();
    SSL *server = open_end(for_server, to_server, to_client);
    SSL_set_accept_state(server);
    long long spent = thread_ns() - began;
    int is_client_done = 0, is_server_done = 0;
    for (int at = 0; at < STEPS_MAX && !(is_client_done && is_server_done); at++) {
        is_client_done = step(client);
        began = thread_ns();
        is_server_done = step(server);
        spent += thread_ns() - began;
    }
    if (!is_client_done || !is_server_done || SSL_session_reused(server)) fail("not complete");
    export_keys(client, client_keys);
    if (is_told)
        printf("%s %s ", SSL_get_cipher_name(server),
               SSL_group_to_name(server, (int)SSL_get_negotiated_group(server)));
    began = thread_ns();
    export_keys(server, server_keys);
    SSL_free(server);
    spent += thread_ns() - began;
    if (memcmp(client_keys, server_keys, MATERIAL_BYTES) != 0) fail("other keys");
    SSL_free(client);
    BIO_free(to_server);
    BIO_free(to_client);
    return spent;
}

int main(int count, char **arguments) {
    long long spent = 0;
    int wanted = count == 3 ? atoi(arguments[1]) : 0;
    if (wanted <= 0) fail("openssl_dtls COUNT GROUP");
    make(&client_identity);
    make(&server_identity);
    SSL_CTX *for_client = context(DTLS_client_method(), &client_identity, is_server, arguments[2]);
    SSL_CTX *for_server = context(DTLS_server_method(), &server_identity, is_client, arguments[2]);
    /* The first ones fill caches, and are not counted. */
    for (int at = 0; at < 20; at++) shake(for_client, for_server, at == 19);
    for (int at = 0; at < wanted; at++) spent += shake(for_client, for_server, 0);
    printf("%lld\n", spent / wanted);
    SSL_CTX_free(for_client);
    SSL_CTX_free(for_server);
    return 0;
}
