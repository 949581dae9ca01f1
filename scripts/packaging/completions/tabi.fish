complete -c tabi -l allow-from -d 'Clients that are served; repeatable, replaces the default: loopback and private networks, which the word `default` stands for' -r
complete -c tabi -l rules -d 'Who may do what, and where: a file with a rule a line, the first that matches decides' -r -F
complete -c tabi -l users -d 'Require username and password: a file with `name:password` or `name:hash` a line, that only its owner can read' -r -F
complete -c tabi -l no-password-from -d 'Clients that need no username and password; repeatable. Those who send one all the same have to send a right one' -r
complete -c tabi -l protocols -d 'What is served: socks5, socks4, http' -r
complete -c tabi -l proxy-protocol -d 'Load balancers whose PROXY header (v1 or v2) is believed, and required; repeatable' -r
complete -c tabi -l upstream -d 'The SOCKS5 server that CONNECT goes through where no rule says otherwise: socks5h://HOST:PORT gets names as they are, socks5://HOST:PORT the addresses that they have here and that the rules permit; USER:PASSWORD@ before HOST in the environment or a rules file alone' -r
complete -c tabi -l source -d 'Local address of outgoing connections, repeatable: one a family; `same` is the address at which the client has reached this server' -r
complete -c tabi -l interface -d 'Interface by which outgoing connections and datagrams leave, whatever the routes say, except those for this machine itself' -r
complete -c tabi -l mark -d 'Mark of outgoing connections and datagrams, for rules of routing (`ip rule add fwmark N`)' -r
complete -c tabi -l udp-ports -d 'Ports on which clients send UDP datagrams, as in 40000-40099, one of them for each association; for a firewall or a container that lets only some ports through' -r
complete -c tabi -l udp-advertise -d 'Address that clients are told to send UDP datagrams to, where it is another one than they connect to; repeatable, one a family' -r
complete -c tabi -l max-connections -d 'Connections that are served at once; in a full server the client with most gives way, or new ones wait' -r
complete -c tabi -l max-per-client -d 'Connections of one client at once (an IPv4 address, a neighbour\'s IPv6 address, another IPv6 /64); further ones are closed' -r
complete -c tabi -l handshake-timeout -d 'Seconds from a client\'s connection to its complete request' -r
complete -c tabi -l connect-timeout -d 'Seconds from a request to the connection with its target, the name\'s lookup included' -r
complete -c tabi -l idle-timeout -d 'Seconds without a byte in either direction after which a session ends; UDP associations end after 300 where this is not given' -r
complete -c tabi -l grace -d 'Seconds that live sessions have to finish after SIGINT or SIGTERM' -r
complete -c tabi -l name-cache -d 'Seconds for which the addresses of a name are remembered, failures for 5 at the most; 0: every name is looked up every time' -r
complete -c tabi -l log-rate-limit -d 'Lines a second in the log for one client; 100 times as many at once, 10 times as many for all clients together. The others are counted' -r
complete -c tabi -l status -d 'Status page, metrics and health over HTTP; a PORT alone is on loopback' -r
complete -c tabi -l status-host -d 'Further names by which browsers and programs may ask for the status page, as in nas.lan; repeatable' -r
complete -c tabi -l log-file -d 'Append the log to this file, not to standard error' -r -F
complete -c tabi -l log-format -d 'What each line of the log is: text, or a JSON object for programs' -r -f -a "text\t''
json\t''"
complete -c tabi -s v -l verbose -d 'Log more: clients that leave without a request, too'
complete -c tabi -s q -l quiet -d 'Log warnings and errors only'
complete -c tabi -l check -d 'Say whether the options and files are in order, and exit'
complete -c tabi -l probe -d 'Greet the server at LISTEN, and exit with status 0 if it answers within 2 seconds'
complete -c tabi -l hash-password -d 'Read a password from the terminal or a line of standard input, print its hash for --users, and exit'
complete -c tabi -s h -l help -d 'Print this help'
complete -c tabi -s V -l version -d 'Print the version'
