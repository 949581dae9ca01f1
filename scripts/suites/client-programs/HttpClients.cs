// .NET's two HTTP clients through an HTTP proxy.
//
// HttpClients.exe old|new PROXY_URL URL BLOB DIGEST [USER PASSWORD] fetches URL/blob and sends the file BLOB to URL/,
// says `same` when both arrived unchanged, and fails otherwise. DIGEST is the SHA-256 of BLOB, which .NET alone has
// only with OpenSSL.

using System;
using System.IO;
using System.Linq;
using System.Net;
using System.Net.Http;
using System.Text;

static class HttpClients
{
    const string OURS = "CN=tabi tests";

    static int Main(string[] arguments)
    {
        // The test's own certificate authority, which is in no store of this machine.
        ServicePointManager.ServerCertificateValidationCallback = (sender, one, chain, errors) => one.Issuer == OURS;
        var proxy = new WebProxy(arguments[1]);
        if (arguments.Length > 5) proxy.Credentials = new NetworkCredential(arguments[5], arguments[6]);
        var url = arguments[2];
        var blob = File.ReadAllBytes(arguments[3]);
        byte[] came, digest;
        if (arguments[0] == "old")
        {
            using (var client = new WebClient { Proxy = proxy })
            {
                came = client.DownloadData(url + "/blob");
                digest = client.UploadData(url + "/", blob);
            }
        }
        else
        {
            var handler = new HttpClientHandler { Proxy = proxy, UseProxy = true };
            handler.ServerCertificateCustomValidationCallback = (request, one, chain, errors) => one.Issuer == OURS;
            using (var client = new HttpClient(handler))
            {
                came = client.GetByteArrayAsync(url + "/blob").Result;
                var answer = client.PostAsync(url + "/", new ByteArrayContent(blob)).Result;
                digest = answer.EnsureSuccessStatusCode().Content.ReadAsByteArrayAsync().Result;
            }
        }
        if (!came.SequenceEqual(blob) || Encoding.ASCII.GetString(digest) != arguments[4])
        {
            Console.Error.WriteLine("what arrived differs from what was sent");
            return 1;
        }
        Console.WriteLine("same");
        return 0;
    }
}
