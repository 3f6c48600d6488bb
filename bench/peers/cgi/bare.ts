console.log("Status: 200 OK\nContent-Type: text/plain\n\nHello, world");
