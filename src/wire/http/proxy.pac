// The proxy for everything but what is near: names without a dot, names in .local, and addresses of private
// networks, of the link and of the device itself. No name is looked up. JavaScript of 1999, for old devices.
function FindProxyForURL(url, host) {
    var name = host.toLowerCase().replace(/^\[|[\].]$/g, "");
    var octet = "\\.(\\d|[1-9]\\d|1\\d\\d|2[0-4]\\d|25[0-5])";
    var near = "^((10|127)" + octet + "|169\\.254|172\\.(1[6-9]|2\\d|3[01])|192\\.168)" + octet + octet + "$";
    if (/^[^.:]*$/.test(name) || /\.local$/.test(name) || new RegExp(near).test(name) ||
        /^(f[cd][0-9a-f]{2}|fe[89ab][0-9a-f]):/.test(name) || /^[0:]*1$/.test(name)) {
        return "DIRECT";
    }
    return "PROXY {place}";
}
